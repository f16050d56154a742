"""FSDP2: weights, gradients and AdamW's moments of the towers split over the ranks.

Each rank keeps 1/W of every tower's parameter, as a DTensor sharded along dimension 0. A block's
weights are gathered before its forward, freed after it, gathered again for its backward and freed.
Projections and temperature are small and stay whole on every rank, and so do frozen blocks, which have
neither gradient nor moments.

Memory a rank, in float32 and P parameters of the towers: 12 P / W bytes for weights and moments, 4 P
for gradients between the first and the last backward of a step (they are summed once, at its end),
and one block's weights. Without sharding: 16 P.

Bytes on the wire: a rank receives 4 P (W - 1) / W for each forward of a micro-batch, the same for its
backward, and as much once a step for the gradients. Weights that are gathered in 16 bits are half of it.

Within nodes (HSDP): the ranks of a node split a model among them, and each node has a copy. W is then the ranks of a
node for all of the above, so no weights travel between nodes; with C copies a rank receives 8 P / W (C - 1) / C more
once a step, the sum of its part of the gradient over the nodes.

Shapes: W ranks that split a model, C copies of it, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from zerovl.distributed.ranks import Ranks
from zerovl.engine.gradients import GradientSum
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.model.blocks import blocks
from zerovl.model.dual_encoder import DualEncoder, is_frozen
from zerovl.params import MachineParams

WHOLE = MixedPrecisionPolicy()  # weights are gathered as they are, in float32


def gather_policy(gathers: str, precision: Precision) -> MixedPrecisionPolicy:
    """Return how weights are gathered: `gathers` "float32", or "low" for the 16 bits in which the towers compute.

    Shards, moments and the sum of the gradients over micro-batches and ranks stay float32. Autocast would round the
    same weights for its matrix products; FSDP rounds those of embeddings and norms too. So the first block of a ViT
    gets class token and positions in 16 bits, and all hand on 16 bits, whatever `train.residual_stream` says.
    """
    if gathers == "float32" or precision.dtype is None:
        return WHOLE
    return MixedPrecisionPolicy(precision.dtype, torch.float32, cast_forward_inputs=False)


def gathered_as(machine: MachineParams, precision: str, ranks: Ranks) -> str:
    """Return `machine.shard_gathers` as it takes effect: "low" where weights really come in 16 bits, else "float32"."""
    sharded = machine.shard_model and ranks.world_size > 1
    return machine.shard_gathers if sharded and precision != "float32" else "float32"


def part_size(machine: MachineParams, ranks: Ranks) -> int:
    """Return how many ranks split a copy of the model: all, or under `machine.shard_within` node those of a node.

    A collective then. Raises `ZeroVLError` where nodes have different numbers of ranks, or one each.
    """
    if machine.shard_within == "all" or ranks.node_size is None:
        return ranks.world_size
    mine = torch.tensor([ranks.node_size], device=ranks.device)
    sizes: list[int] = ranks.collectives.gather(mine).tolist()  # of each rank's node
    size = sizes[0]
    if set(sizes) != {size} or ranks.world_size % size:
        found = ", ".join(map(str, sorted(set(sizes))))
        raise ZeroVLError(
            f"machine.shard_within node: {ranks.world_size} ranks on nodes of {found} are not a multiple of one "
            "number of ranks a node; give torchrun the same --nproc-per-node on all nodes, or set "
            "machine.shard_within to all"
        )
    if size == 1:
        raise ZeroVLError(
            f"machine.shard_within node: each of {ranks.world_size} nodes has one rank, so nothing would be split; set "
            "machine.shard_within to all, or machine.shard_model to false"
        )
    return size


def shard(
    model: DualEncoder, ranks: Ranks, policy: MixedPrecisionPolicy = WHOLE, part_ranks: int | None = None
) -> None:
    """Split both towers, in place; a collective that all ranks enter with the same weights.

    Each `part_ranks` ranks that follow each other split a copy of them; None: all ranks split one.
    Under a `policy` of 16 bits the towers go forward in autocast alone. Raises `ZeroVLError` where it does not fit one.
    """
    # A frozen tower has no moments to split, and FSDP tidies up in a backward that it never has.
    towers = [tower for tower in (model.image_tower, model.text_tower) if not is_frozen(tower)]
    if policy.param_dtype:
        for tower in towers:
            _check_16_bits(model, tower, ranks)
    mesh = _mesh(ranks, part_ranks or ranks.world_size)
    for tower in towers:
        tower.register_forward_hook(_own_output)
        still = {parameter for parameter in tower.parameters() if not parameter.requires_grad}
        for part in [*(block for block in blocks(tower) if not is_frozen(block)), tower]:
            # The whole tower's, too: outside of a forward and backward `parameters()` are then always
            # the sharded ones that the optimiser knows.
            sharded = fully_shard(
                part, mesh=mesh, reshard_after_forward=True, mp_policy=policy, ignored_params=still or None
            )
            sharded.set_gradient_divide_factor(1.0)  # gradients are sums over ranks (see `contrastive_loss`)
            sharded.set_force_sum_reduction_for_comms(True)  # gloo has no other


def _mesh(ranks: Ranks, part_ranks: int) -> DeviceMesh:
    """Return the ranks in one row, or in a row a copy."""
    kind, copies = ranks.device.type, ranks.world_size // part_ranks
    if copies == 1:
        return init_device_mesh(kind, (ranks.world_size,))
    return init_device_mesh(kind, (copies, part_ranks), mesh_dim_names=("copies", "parts"))


def copies_of(tensor: DTensor) -> int:
    """Return how many ranks hold the same part of it."""
    mesh = tensor.device_mesh
    return mesh.size(0) if mesh.ndim == 2 else 1


def _check_16_bits(model: DualEncoder, tower: nn.Module, ranks: Ranks) -> None:
    """Raise `ZeroVLError` where a tower cannot go forward with weights of 16 bits."""
    if any(isinstance(module, _BatchNorm) for module in tower.modules()):
        raise ZeroVLError(
            f"machine.shard_gathers low: the image tower {model.architecture.image_tower} has batch normalisation, "
            "whose weights are as exact as its statistics; set it to float32"
        )
    frozen = sum(is_frozen(block) for block in blocks(tower))
    if frozen and ranks.device.type == "cpu":
        side = "image" if tower is model.image_tower else "text"
        raise ZeroVLError(
            f"machine.shard_gathers low and train.fine_tuning.freeze_{side}_blocks {frozen}: frozen blocks hand on "
            "float32, which PyTorch's norms do not take with weights of 16 bits on a CPU; set machine.shard_gathers to "
            "float32"
        )


def _own_output(_tower: nn.Module, _inputs: Any, output: Any) -> Any:
    """FSDP hangs a hook on the output, which it warns may get lost on a view (timm gives token 0 as one)."""
    return output.clone() if isinstance(output, Tensor) else output


def is_sharded(model: nn.Module) -> bool:
    """Whether some of a model's modules are split over the ranks."""
    return any(True for _ in _sharded_modules(model))


class ShardedGradientSum:
    """`Gradients` of a sharded model: one reduce-scatter a block and step, and an all-reduce for what is whole."""

    def __init__(self, model: DualEncoder, ranks: Ranks) -> None:
        self._towers = [tower for tower in (model.image_tower, model.text_tower) if isinstance(tower, FSDPModule)]
        self._whole = GradientSum((p for p in model.parameters() if not isinstance(p, DTensor)), ranks.collectives)
        self._reduce(False)

    @contextmanager
    def last_backward(self) -> Iterator[None]:
        """Around the last backward pass of a step; passes before it leave whole gradients on their rank."""
        self._reduce(True)
        try:
            with self._whole.last_backward():
                yield
        finally:
            self._reduce(False)

    def finish(self) -> None:
        """After it: `.grad` is the sum over ranks, of a tower this rank's shard of it; a collective."""
        self._whole.finish()

    def _reduce(self, wanted: bool) -> None:
        for tower in self._towers:
            tower.set_requires_gradient_sync(wanted)


class ShardedGradScaler(torch.amp.GradScaler):
    """fp16's loss scale for a sharded model: a step is skipped on all ranks where one finds an overflow.

    Gradients are looked at shard by shard; PyTorch's own mixes DTensors and plain tensors in one
    call, which fails.
    """

    def __init__(self, ranks: Ranks, enabled: bool) -> None:
        super().__init__(ranks.device.type, enabled=enabled)
        self._ranks = ranks

    def _unscale_grads_(
        self, optimizer: torch.optim.Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        local: Any = _LocalGradients(optimizer)
        found: dict[torch.device, Tensor] = super()._unscale_grads_(local, inv_scale, found_inf, allow_fp16)
        for flag in found.values():
            self._ranks.collectives.sum(flag).clamp_(max=1.0)  # the fused AdamW skips at exactly 1
        return found


class _LocalGradients:
    """An optimiser's gradients as plain tensors in the same memory."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        self.param_groups = [{"params": [_local(parameter) for parameter in parameters]}]


def _local(parameter: Tensor) -> Tensor:
    view = local_part(parameter.detach())
    assert parameter.grad is not None
    view.grad = local_part(parameter.grad)
    return view


def local_part(tensor: Tensor) -> Tensor:
    """The part of a DTensor that this rank holds, in the same memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _sharded_modules(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))
