"""One training step on one CPU core, against its peers: `make bench-step`.

    python -m benchmarks.bench_step            # about 5 minutes
    python -m benchmarks.bench_step --smoke --out /dev/shm/step.json

A step is forward, loss and backward, without the optimiser, which is the same for all. Time is CPU
time of one thread, batch 256 in micro-batches of 32, all kinds on the same towers and the same pairs,
interleaved. Options are measured each against its opposite. Peak memory by batch is in `bench_memory`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import kinds, step_options
from benchmarks.child import Runner, in_child
from benchmarks.common import RESULTS, Results, find_all, interleaved, summary
from benchmarks.page import update_page
from benchmarks.towers import WORDS, make, make_batch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    towers: tuple[str, ...] = ("vit", "demo")
    batch: int = 256
    micro_batch: int = 32
    rounds: int = 15


SMOKE = Settings(towers=("tiny",), batch=8, micro_batch=2, rounds=1)


def main(arguments: Sequence[str] | None = None, runner: Runner = in_child) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "step.json", help="result file of the times")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    options = parser.parse_args(arguments)
    settings = SMOKE if options.smoke else Settings()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = Results(options.out, asdict(settings) | {"words": {name: WORDS[name] for name in settings.towers}})
        for towers in settings.towers:
            measure_time(results, settings, towers)
        step_options.measure(results, step_options.SMOKE if options.smoke else step_options.Settings(), runner)
    finally:
        torch.set_num_threads(cores)
    if not options.smoke:
        update_page()
    return results.status()


def measure_time(results: Results, settings: Settings, towers: str) -> None:
    """CPU seconds of a step and their ratio to the plain one."""
    model = make(towers, CPU)
    micro = make_batch(towers, settings.batch, settings.micro_batch)
    whole = make_batch(towers, settings.batch, settings.batch)
    found, missing = find_all(kinds.finders(model, CPU, "float32", kept=len(micro) // 2))
    for kind, record in missing.items():
        results.add("time", f"{kind}, {towers}", {"kind": kind, "towers": towers, **record})
    calls = {
        kind: partial(kinds.run_step, step, model, whole if kind in kinds.WHOLE else micro)
        for kind, step in found.items()
    }
    seconds = interleaved(calls, settings.rounds, time.process_time)
    for kind, own in seconds.items():
        record = {"kept": kinds.kept_graphs(found[kind]), **summary(own, seconds[kinds.PLAIN])}
        results.add("time", f"{kind}, {towers}", {"kind": kind, "towers": towers, **record})


if __name__ == "__main__":
    sys.exit(main())
