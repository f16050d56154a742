"""Peak memory of one training step by batch size, on a CPU: `make bench-memory`.

    python -m benchmarks.bench_memory            # about 5 minutes
    python -m benchmarks.bench_memory --smoke --out /dev/shm/memory.json

Each figure is of a fresh process: the kernel's own count of resident memory, at its peak. Micro-batches
of 32; the plain step takes its batch in one piece.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import kinds
from benchmarks.child import Runner, in_child
from benchmarks.common import MIB, RESULTS, Record, Results, forget_peak, peak_resident, resident, rounded
from benchmarks.page import update_page
from benchmarks.towers import WORDS, make, make_batch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    towers: str = "demo"
    batches: tuple[int, ...] = (256, 1024, 4096)
    plain_batches: tuple[int, ...] = (256, 1024)  # more is not worth the wait
    micro_batch: int = 32
    kept: int = 4


SMOKE = Settings(towers="tiny", batches=(4, 8), plain_batches=(4,), micro_batch=2, kept=1)


def main(arguments: Sequence[str] | None = None, runner: Runner = in_child) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json", help="result file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    options = parser.parse_args(arguments)
    settings = SMOKE if options.smoke else Settings()
    results = Results(options.out, asdict(settings) | {"words": {settings.towers: WORDS[settings.towers]}})
    for kind in (kinds.DGA, kinds.NOTHING_KEPT, kinds.KEPT, kinds.PLAIN, kinds.ACCUM):
        for batch in settings.plain_batches if kind in kinds.WHOLE else settings.batches:
            record = runner(
                "benchmarks.bench_memory:peak",
                kind=kind,
                towers=settings.towers,
                batch=batch,
                micro_batch=batch if kind in kinds.WHOLE else settings.micro_batch,
                kept=settings.kept,
            )
            results.add("memory", f"{kind}, {batch}", {"kind": kind, "batch": batch, **record})
    if not options.smoke:
        update_page()
    return results.status()


def peak(kind: str, towers: str, batch: int, micro_batch: int, kept: int) -> Record:
    """Largest resident memory of a step: of the whole process, and over what was resident before.

    Before are the libraries, the model and the pairs; a process does this once.
    """
    torch.set_num_threads(1)
    model = make(towers, CPU)
    step = kinds.finders(model, CPU, "float32", kept)[kind]()
    kinds.run_step(step, model, make_batch(towers, 2, 1))  # the libraries' own start-up is not counted
    micro_batches = make_batch(towers, batch, micro_batch)
    forget_peak()
    before = resident()
    kinds.run_step(step, model, micro_batches)
    found = {"peak_mib": rounded(peak_resident() / MIB), "extra_mib": rounded((peak_resident() - before) / MIB)}
    return {"kept": kinds.kept_graphs(step), **found}


if __name__ == "__main__":
    sys.exit(main())
