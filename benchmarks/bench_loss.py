"""The contrastive loss, forward and backward, against its peers: `make bench-loss`.

    python -m benchmarks.bench_loss            # about 4 minutes on two CPU cores
    python -m benchmarks.bench_loss --smoke --out /dev/shm/loss.json    # seconds, for a look at the machinery

CPU: `contrastive_loss` against open_clip's `ClipLoss` and the dense reference in float32, width 512:
time on one core and on all, peak memory in fresh processes, and the error at low temperatures against
float64. Where there is a GPU, also the loss part of `bench_gpu`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import gpu_loss
from benchmarks.child import Runner, in_child
from benchmarks.common import (
    MIB,
    RESULTS,
    Record,
    Results,
    forget_peak,
    interleaved,
    peak_resident,
    resident,
    rounded,
    summary,
)
from benchmarks.gpu import Deadline
from benchmarks.losses import DENSE, FINDERS, OPEN_CLIP, OURS, available, embeddings, errors, run_loss, unshifted
from benchmarks.page import update_page
from zerovl.device import uses_gpu
from zerovl.text_format import plural


@dataclass(frozen=True)
class Settings:
    width: int = 512
    temperature: float = 0.05
    sizes: tuple[int, ...] = (1024, 2048, 4096, 8192)
    memory_sizes: tuple[int, ...] = (4096, 8192, 16384)
    rounds: int = 15
    stability_pairs: int = 1024
    temperatures: tuple[float, ...] = (0.1, 0.01, 0.005, 0.001)


SMOKE = Settings(width=16, sizes=(32,), memory_sizes=(32,), rounds=2, stability_pairs=16)


def main(arguments: Sequence[str] | None = None, runner: Runner = in_child) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "loss.json", help="result file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    options = parser.parse_args(arguments)
    settings = SMOKE if options.smoke else Settings()
    results = Results(options.out, asdict(settings))
    measure_memory(results, settings, runner)
    measure_stability(results, settings)
    cores = torch.get_num_threads()
    try:
        for threads in sorted({1, cores}):
            torch.set_num_threads(threads)
            measure_time(results, settings, plural(threads, "thread"))
    finally:
        torch.set_num_threads(cores)
    if uses_gpu():
        on_gpu = gpu_loss.SMOKE if options.smoke else gpu_loss.Settings()
        gpu_loss.measure(results, on_gpu, torch.device("cuda"), Deadline(math.inf))
    if not options.smoke:
        update_page()
    return results.status()


def measure_time(results: Results, settings: Settings, threads: str) -> None:
    """Wall-clock seconds of each loss, and the ratio to open_clip's."""
    for pairs in settings.sizes:
        inputs = embeddings(pairs, settings.width, settings.temperature)
        losses = available(results, "time", pairs, FINDERS)
        calls = {name: partial(run_loss, loss, inputs) for name, loss in losses.items()}
        seconds = interleaved(calls, settings.rounds, time.perf_counter)
        for name, own in seconds.items():
            record = summary(own, seconds.get(OPEN_CLIP))
            results.add("time", f"{name}, {pairs}, {threads}", {"pairs": pairs, "loss": name, "on": threads, **record})


def measure_memory(results: Results, settings: Settings, runner: Runner) -> None:
    """What forward and backward take beyond their inputs."""
    for pairs in settings.memory_sizes:
        for name in (OPEN_CLIP, DENSE, OURS):
            record = runner("benchmarks.bench_loss:peak", name=name, pairs=pairs, width=settings.width)
            results.add("memory", f"{name}, {pairs}", {"pairs": pairs, "loss": name, **record})


def peak(name: str, pairs: int, width: int) -> Record:
    """Largest resident memory of one forward and backward over what was resident before; a process does it once."""
    loss = FINDERS[name]()
    run_loss(loss, embeddings(64, width, 0.05))  # the libraries' own start-up is not counted
    inputs = embeddings(pairs, width, 0.05)
    forget_peak()
    before = resident()
    run_loss(loss, inputs)
    return {"extra_mib": rounded((peak_resident() - before) / MIB)}


def measure_stability(results: Results, settings: Settings) -> None:
    losses = {OURS: FINDERS[OURS](), DENSE: FINDERS[DENSE](), "without the shift by the maximum": unshifted}
    for temperature in settings.temperatures:
        inputs = embeddings(settings.stability_pairs, settings.width, temperature)
        for name, loss in losses.items():
            record = {"loss": name, "temperature": temperature, **errors(loss, inputs)}
            results.add("stability", f"{name}, {temperature}", record)


if __name__ == "__main__":
    sys.exit(main())
