"""The loss part of `bench_gpu`: bf16 embeddings against Inf-CL and open_clip, and the kernel against float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.common import Record, Results, measured, summary, surviving
from benchmarks.gpu import Deadline, clock, free, memory
from benchmarks.losses import OPEN_CLIP, OURS, Embeddings, Finder, available, embeddings, errors, run_loss, tiled
from benchmarks.peers import Loss, inf_cl_loss, open_clip_loss

FLASH, INF = "inf_cl cal_flash_loss", "inf_cl cal_inf_loss"


@dataclass(frozen=True)
class Settings:
    width: int = 512  # a multiple of 256, as Inf-CL's kernels have it
    temperature: float = 0.05
    sizes: tuple[int, ...] = (16384, 65536)
    alone: int = 262144
    parity_sizes: tuple[int, ...] = (1024, 1003)  # the second is not a multiple of any tile
    rounds: int = 5


SMOKE = Settings(width=256, sizes=(64,), alone=128, parity_sizes=(33,), rounds=2)


def measure(results: Results, settings: Settings, device: torch.device, deadline: Deadline) -> None:
    """Sections "loss parity" and "loss" of `results`; what they hold already is not measured again.

    Raises `MinutesAreUp` by the deadline.
    """
    for pairs in settings.parity_sizes:
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{str(dtype).removeprefix('torch.')}, {pairs}"
            if not results.has("loss parity", name):
                deadline.check()
                inputs = embeddings(pairs, settings.width, settings.temperature, dtype, device)
                record = measured(partial(errors, tiled, inputs))
                results.add("loss parity", name, {"pairs": pairs, "dtype": str(dtype).split(".")[1], **record})
    finders: dict[str, Finder] = {
        OURS: lambda: tiled,
        FLASH: lambda: inf_cl_loss("cal_flash_loss", device),
        INF: lambda: inf_cl_loss("cal_inf_loss", device),
        OPEN_CLIP: open_clip_loss,
    }
    for pairs in settings.sizes:
        _compare(results, settings, pairs, finders, device, deadline)
    _compare(results, settings, settings.alone, {OURS: finders[OURS]}, device, deadline)


def _compare(
    results: Results,
    settings: Settings,
    pairs: int,
    finders: dict[str, Finder],
    device: torch.device,
    deadline: Deadline,
) -> None:
    """Time and peak memory of forward and backward; the ratio is to Inf-CL's, so all run again where one is missing."""
    if all(results.has("loss", f"{name}, {pairs}") for name in finders):
        return
    deadline.check()
    inputs = embeddings(pairs, settings.width, settings.temperature, torch.bfloat16, device)
    memory: dict[str, Record] = {}
    calls = {}
    for name, loss in available(results, "loss", pairs, finders).items():
        deadline.check()
        memory[name] = measured(partial(_first_run, loss, inputs))
        if "not_measured" in memory[name]:
            results.add("loss", f"{name}, {pairs}", {"pairs": pairs, "loss": name, **memory[name]})
            free(device)
        else:
            calls[name] = partial(run_loss, loss, inputs)
    seconds, failed = surviving(calls, settings.rounds, clock(device))
    timed = {name: summary(own, seconds.get(FLASH)) for name, own in seconds.items()}
    for name, record in (timed | failed).items():
        results.add("loss", f"{name}, {pairs}", {"pairs": pairs, "loss": name, **memory[name], **record})


def _first_run(loss: Loss, inputs: Embeddings) -> Record:
    """Memory over the inputs; kernels are compiled in a run before it."""
    run_loss(loss, inputs)
    return memory(partial(run_loss, loss, inputs), inputs[0].device)
