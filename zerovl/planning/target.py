"""Where a planned run is to happen: this machine, or the GPUs that the options of `zerovl plan` name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from zerovl.device import gpu_count, uses_gpu
from zerovl.errors import ZeroVLError
from zerovl.memory import free_host_memory
from zerovl.params import Params
from zerovl.planning import gpus
from zerovl.text_format import parse_size


@dataclass(frozen=True)
class Target:
    """Where the run is to happen."""

    kind: str  # cpu or cuda
    name: str
    world_size: int
    memory: int  # bytes a rank
    flops: float | None  # a second and rank, of large matrix products; None where nobody knows
    nodes: int = 1

    @property
    def node_size(self) -> int:
        """Ranks of a node."""
        return self.world_size // self.nodes


def find_target(
    params: Params, ranks: int | None, gpu: str | None, memory: str | None, nodes: int | None = None
) -> Target:
    """What the options of `zerovl plan` name, else this machine; raises `ZeroVLError` for what is not known."""
    target = _find_target(params, ranks, gpu, memory)
    if nodes is None:
        return target
    if nodes < 1 or target.world_size % nodes:
        raise ZeroVLError(
            f"--nodes {nodes}: {target.world_size} ranks are not a multiple of it; name nodes of as many ranks each, "
            "and all their ranks with --gpus"
        )
    return replace(target, nodes=nodes)


def _find_target(params: Params, ranks: int | None, gpu: str | None, memory: str | None) -> Target:
    here = uses_gpu()
    given = parse_size(memory, "--gpu-memory") if memory else None
    if ranks is not None and ranks < 1:
        raise ZeroVLError(f"--gpus {ranks}: give 1 or more")
    if not (here or ranks or gpu or memory):
        world = max(1, params.machine.ranks)
        name = f"{world} CPU ranks of this machine" if world > 1 else "the CPU of this machine"
        return Target("cpu", name, world, free_host_memory() // world, None)
    properties = torch.cuda.get_device_properties(0) if here else None
    row = gpus.named(gpu) if gpu else gpus.known(properties.name) if properties else None
    world = ranks or params.machine.ranks or max(1, gpu_count())
    total = given or (row.memory_gib << 30 if gpu and row else properties.total_memory if properties else None)
    if total is None:
        raise ZeroVLError("--gpus without a GPU on this machine: name one with --gpu, or its memory with --gpu-memory")
    name = gpu or (properties.name if properties else "GPU")
    rate = None
    if row:
        rate = 1e12 * (row.single if params.train.precision == "float32" else row.half)
    return Target("cuda", f"{world} x {name}", world, total, rate)
