"""Options of the towers change memory and time, not the gradient."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.towers import (
    CPU,
    RANKS,
    MicroInputs,
    batch,
    decoupled_step,
    gradients,
    model,
    plain_step,
    prepared,
    settings,
    shallow,
)
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.model_options import options_without_effect, set_float32_arithmetic
from zerovl.engine.optimiser import make_optimiser
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix
from zerovl.params_file import from_recipe
from zerovl.training.start_block import without_effect

MIX = Mix("text", 0.4)


def stepped(dual: DualEncoder, kind: Any = decoupled_step, parts: list[MicroInputs] | None = None) -> dict[str, Tensor]:
    loss = kind(dual, RANKS, Precision("float32", CPU), 3)(parts or batch(), MIX, 7)
    return {"loss": loss, **gradients(dual)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("tower", ["vit_tiny_patch16_224", "test_resnet", "test_convnext"])
def test_checkpointing_replays_dropout_and_batch_statistics(tower: str) -> None:
    options = {"depth": 2} if tower.startswith("vit") else {}
    expected = stepped(model(tower, **options).double().train())
    found = prepared(model(tower, **options).double(), activation_checkpointing=True)
    blocks: list[int] = []
    for module in found.text_tower.encoder.layer:  # type: ignore[union-attr]
        module.attention.register_forward_hook(lambda *_: blocks.append(1))
    assert_same(stepped(found), expected, rtol=1e-9, atol=1e-12)
    assert len(blocks) == 3 * 4  # first pass, second pass and its backward, four micro-batches


@pytest.mark.parametrize("kind", [plain_step, decoupled_step, partial(decoupled_step, kept_graphs=2)])
def test_checkpointing_leaves_running_statistics_as_they_are_without(kind: Any) -> None:
    plain, checkpointed = model("test_resnet").train(), prepared(model("test_resnet"), activation_checkpointing=True)
    for dual in (plain, checkpointed):
        stepped(dual, kind)
    for (name, expected), found in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)


def test_a_tower_that_cannot_checkpoint_is_named() -> None:
    dual = model()
    dual.image_tower.set_grad_checkpointing = None  # type: ignore[assignment]
    del dual.image_tower.set_grad_checkpointing
    dual.image_tower.__class__ = type("Bare", (nn.Module,), {})
    with pytest.raises(ZeroVLError, match=r"activation_checkpointing .*vit_tiny_patch16_224.*micro_batch"):
        prepared(dual, activation_checkpointing=True)


@pytest.mark.parametrize(("side", "tower"), [("image", "test_resnet"), ("text", "vit_tiny_patch16_224")])
def test_a_frozen_tower_does_not_move(side: str, tower: str) -> None:
    dual = prepared(model(tower), freeze=[side], activation_checkpointing=True, weight_decay=0.5)
    frozen = getattr(dual, f"{side}_tower")
    before = {name: tensor.clone() for name, tensor in dual.state_dict().items()}
    assert not any(module.training for module in frozen.modules())
    optimiser = make_optimiser(dual, settings(weight_decay=0.5)[0])
    found = stepped(dual)
    optimiser.step()
    assert f"{side}_projection.weight" in found
    for name, tensor in dual.state_dict().items():  # weights, and BatchNorm's running statistics
        moved = not torch.equal(tensor, before[name])
        assert not (moved and name.startswith(f"{side}_tower."))
        if name.endswith("projection.weight"):
            assert moved
    dual.eval()
    assert not any(module.training for module in dual.modules())
    dual.train()
    assert (dual.text_tower if side == "image" else dual.image_tower).training
    assert not frozen.training


def test_channels_last_reaches_the_convolutions() -> None:
    expected = stepped(model("test_convnext").double().train())
    dual = prepared(model("test_convnext").double(), channels_last=True)
    formats = []
    convolutions = [module for module in dual.image_tower.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        module.register_forward_pre_hook(
            lambda _, inputs: formats.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    found = stepped(dual)
    assert len(formats) == 2 * 4 * len(convolutions)
    assert all(formats)
    assert_same(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # ten C++ kernels: 84 s of CPU, and ten minutes on a busy machine
def test_compiled_towers_draw_the_masks_of_eager_ones_for_all_lengths() -> None:
    """Both steps, so a graph without backward and one with; text not compiled for each length."""
    parts = batch(3)
    for part, length in zip(parts, (8, 5, 7), strict=True):
        part.input_ids = part.input_ids[:, :length].contiguous()  # as a tokenizer makes them
        part.attention_mask = part.attention_mask[:, :length].contiguous()
    expected = stepped(shallow().train(), plain_step, parts)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    dual = prepared(shallow(), compile=True)
    assert set(dual.state_dict()) == set(shallow().state_dict())
    for kind in (plain_step, decoupled_step):
        dual.zero_grad(set_to_none=True)
        assert_same(stepped(dual, kind, parts), expected, rtol=1e-4, atol=1e-5)
    # Two towers, each with and without backward, and text for its first length: no more with more lengths.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 5
    assert not torch._dynamo.utils.counters["graph_break"]


def test_both_towers_attend_by_sdpa() -> None:
    dual = model(depth=2)
    assert all(block.attn.fused_attn for block in dual.image_tower.blocks)  # type: ignore[union-attr]
    assert dual.text_tower.config._attn_implementation == "sdpa"  # type: ignore[union-attr]


def test_float32_means_float32() -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        for precision, allowed in (("float32", False), ("bf16", True)):
            torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 leaves it
            set_float32_arithmetic(settings(precision=precision)[0])
            # Older and newer names agree: PyTorch raises here where they do not.
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is allowed
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.backends.cuda.matmul.allow_tf32 is False
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = before


def test_options_without_effect_are_said() -> None:
    _, machine = settings(shard_model=True, channels_last=True)
    notes = options_without_effect(machine, model(), RANKS)
    assert [note.split()[0] for note in notes] == ["machine.shard_model", "machine.channels_last"]
    assert options_without_effect(machine, model("test_convnext"), Ranks(0, 2, CPU, OneRank())) == []
    _, machine = settings(shard_gathers="low")
    assert [note.split()[0] for note in options_without_effect(machine, model(), RANKS)] == ["machine.shard_gathers"]
    plain = from_recipe({}, ["train.step=plain", "machine.kept_graphs=2"], "x")
    assert [note.split()[0] for note in without_effect(plain)] == ["train.micro_batch", "machine.kept_graphs"]
