"""What `params.yaml` asks of the towers besides their architecture: frozen, checkpointed, compiled, sharded.

All of it works in place and keeps the names of the parameters, so bundles and checkpoints are the same
with and without. Nothing here changes the gradient by more than rounding, but `freeze`, which leaves a
tower out of it.

Shapes: m pairs of a micro-batch, H x W pixels, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zerovl.distributed.ranks import Ranks
from zerovl.engine.patches import project_patches
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import gather_policy, part_size, shard
from zerovl.errors import ZeroVLError
from zerovl.model.blocks import blocks
from zerovl.model.dual_encoder import DualEncoder, is_frozen
from zerovl.params import FineTuningParams, MachineParams, TrainParams

Side = Literal["image", "text"]


def prepare_model(
    model: DualEncoder, freeze: Sequence[Side], machine: MachineParams, ranks: Ranks, precision: str = "float32"
) -> None:
    """Freeze towers, apply the options of `machine`, and bring the model to its device; before the optimiser is made.

    `precision` is the one that the towers will compute in.
    Raises `ZeroVLError` where a tower cannot do what is asked.
    """
    for side in freeze:
        model.freeze(side)
    if machine.activation_checkpointing:
        checkpoint_activations(model)
    sharded = machine.shard_model and ranks.world_size > 1
    if machine.channels_last:
        convert_to_channels_last(model.image_tower, weights=not sharded)
    if ranks.device.type == "cuda":
        project_patches(model.image_tower)
    if machine.compile:
        compile_towers(model)
    if sharded:
        policy = gather_policy(machine.shard_gathers, Precision(precision, ranks.device))
        # From the host's memory: a device never holds a whole tower.
        shard(model, ranks, policy, part_size(machine, ranks))
    model.to(ranks.device)


def freeze_first_blocks(model: DualEncoder, fine_tuning: FineTuningParams) -> None:
    """Freeze the stem and the first blocks of the towers, as many as are asked for; before `prepare_model`.

    Raises `ZeroVLError` where a tower has fewer blocks.
    """
    counts: tuple[tuple[Side, int], ...] = (
        ("image", fine_tuning.freeze_image_blocks),
        ("text", fine_tuning.freeze_text_blocks),
    )
    for side, count in counts:
        there = len(blocks(getattr(model, f"{side}_tower")))
        if count > there:
            raise ZeroVLError(
                f"train.fine_tuning.freeze_{side}_blocks: {count}, and the {side} tower has {there} blocks; set it to "
                f"{there} at most, or name the tower in train.freeze"
            )
        if count:
            model.freeze_blocks(side, count)


def set_float32_arithmetic(train: TrainParams) -> None:
    """float32 means float32: no inputs rounded to TF32's 10 bits, whatever the environment says.

    By default cuDNN rounds those of convolutions, and where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as in NVIDIA's
    containers, cuBLAS those of matrix products. PyTorch's older names of both settings, which are taken here, set the
    newer ones (`fp32_precision`) too; the newer ones leave the older as they were, and PyTorch raises where it asks
    for one and finds the other different (2.15; aten/src/ATen/Context.cpp).

    Under bf16 and fp16 the matrix products that remain in float32 are those of the loss, which are exact; TF32
    convolutions are no loss there.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = train.precision != "float32"


def checkpoint_activations(model: DualEncoder) -> None:
    """Keep the inputs of a learning tower's blocks alone and compute the rest again in the backward pass.

    PyTorch's non-reentrant version, which stores the random state of a block's forward and sets it for
    the second one: dropout masks are the same.
    """
    if not is_frozen(model.image_tower):
        try:
            model.image_tower.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError):
            raise _cannot_checkpoint(f"the image tower {model.architecture.image_tower}") from None
    if not is_frozen(model.text_tower):
        text_tower: Any = model.text_tower
        if not getattr(text_tower, "supports_gradient_checkpointing", False):
            raise _cannot_checkpoint(f"the text tower {model.architecture.text_config['model_type']}")
        text_tower.config.use_cache = False  # of generation; transformers warns about the two together
        if hasattr(text_tower, "activation_checkpointing_enable"):  # its name from transformers 5.2x on
            text_tower.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            text_tower.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _cannot_checkpoint(tower: str) -> ZeroVLError:
    return ZeroVLError(
        f"machine.activation_checkpointing is true, {tower} has none; set it to false and lower train.micro_batch "
        "instead"
    )


def convert_to_channels_last(tower: nn.Module, weights: bool = True) -> None:
    """Pixels reach the image tower as (m, 3, H, W) with the channels next to each other in memory.

    `weights` false leaves those of the convolutions as they are (FSDP shards only contiguous ones):
    the layout of the pixels decides that of the activations.
    """
    if weights:
        tower.to(memory_format=torch.channels_last)
    tower.register_forward_pre_hook(_pixels_channels_last)


def _pixels_channels_last(_tower: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    pixels, *rest = inputs
    return (pixels.contiguous(memory_format=torch.channels_last), *rest)


def compile_towers(model: DualEncoder) -> None:
    """Compile both towers in place (`nn.Module.compile`, so that names stay); the work is done at the first call.

    Captions are padded to the longest of their micro-batch: the text tower is compiled for the first L, and
    at the second for any L.
    """
    # Inductor's own random numbers depend on how it cut and fused a graph, and nothing promises that a
    # graph without backward (the first pass of `DecoupledStep`) and one with are cut alike; with other
    # dropout masks the gradient would be that of another function. Numbers from PyTorch's generator are
    # those of the eager model in both.
    options = {"fallback_random": True}
    model.image_tower.compile(options=options)
    # Not dynamic=True: it ties L to whatever number it equals at first (heads, their width), and compiles
    # again when they part.
    model.text_tower.compile(options=options)


def options_without_effect(machine: MachineParams, model: DualEncoder, ranks: Ranks) -> list[str]:
    """Options that do nothing for this model on these ranks: said, not ignored."""
    notes = []
    if machine.shard_model and ranks.world_size == 1:
        notes.append("machine.shard_model true has no effect with one rank: there is nobody to share with")
    if machine.shard_gathers == "low" and not machine.shard_model:
        notes.append("machine.shard_gathers low has no effect with machine.shard_model false: nothing is gathered")
    if machine.shard_within == "node" and not machine.shard_model:
        notes.append("machine.shard_within node has no effect with machine.shard_model false: nothing is split")
    elif machine.shard_within == "node" and ranks.node_size in (None, ranks.world_size):
        notes.append("machine.shard_within node has no effect with one node: all ranks are those of a node")
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.image_tower.modules())
    if machine.channels_last and convolutions < 2:
        notes.append(
            f"machine.channels_last true has no effect on {model.architecture.image_tower}: "
            "it has no convolution behind the one that cuts the patches"
        )
    return notes
