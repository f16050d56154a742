"""`zerovl evaluate` on two CPU ranks against one, end to end: see "Many pairs" in docs/evaluation.md.

    python -m benchmarks.bench_evaluate --project FOLDER    # a folder with params.yaml, data/ and model/

Both run with one thread a rank, one after the other in a new order each round, in a copy of the project that shares
its data and model; nothing is written into the project. Wall and processor's time are of the whole command, imports
and the start of the second rank included. Goal: at most 0.6 of the wall time, on a machine of two cores that does
nothing else. That both write the same report is compared, too.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.common import RESULTS, Record, Results, measured, rounded, summary
from zerovl import params_file
from zerovl.files import read_json
from zerovl.params import ClassificationParams

RANKS = (1, 2)
ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True, help="folder with params.yaml, data/ and model/")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of both, {ROUNDS} by default")
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluate.json", help="result file")
    options = parser.parse_args(arguments)
    results = Results(options.out, {"rounds": options.rounds, "threads": 1})
    results.add("evaluate", "two ranks", measured(lambda: compared(options.project.resolve(), options.rounds)))
    return results.status()


def compared(project: Path, rounds: int) -> Record:
    """Seconds of both, and the ratio of two ranks to one round by round."""
    wall: dict[int, list[float]] = {ranks: [] for ranks in RANKS}
    cpu: dict[int, list[float]] = {ranks: [] for ranks in RANKS}
    with tempfile.TemporaryDirectory() as folder:
        copies = {ranks: _copy(project, Path(folder) / str(ranks), ranks) for ranks in RANKS}
        for number in range(rounds):
            for ranks in random.Random(number).sample(RANKS, len(RANKS)):
                seconds, processor = _timed(copies[ranks])
                wall[ranks].append(seconds)
                cpu[ranks].append(processor)
        reports = [_report(copy) for copy in copies.values()]
        overall = read_json(copies[1] / "reports/evaluation/metrics.json")["overall"]
    return {
        "images": overall["images"],
        "captions": overall["captions"],
        "same_report": reports[0] == reports[1],
        **summary(wall[2], wall[1]),
        "one_rank_seconds": rounded(median(wall[1])),
        "cpu_seconds": rounded(median(cpu[2])),
        "one_rank_cpu_seconds": rounded(median(cpu[1])),
    }


def _copy(project: Path, folder: Path, ranks: int) -> Path:
    """Make a folder to evaluate in, with the project's data and model and reports of its own."""
    folder.mkdir()
    for name in ("data", "model"):
        (folder / name).symlink_to(project / name)
    params = params_file.load(project / "params.yaml")
    machine = params.machine.model_copy(update={"ranks": ranks, "threads": 1})
    sets = [its.model_copy(update=_absolute(project, its)) for its in params.evaluate.classification]
    evaluate = params.evaluate.model_copy(update={"classification": sets})
    params_file.write(params.model_copy(update={"machine": machine, "evaluate": evaluate}), folder / "params.yaml")
    return folder


def _absolute(project: Path, its: ClassificationParams) -> dict[str, str]:
    """The places of a set by key, which may lie in the project beside its data."""
    places = {key: getattr(its, key) for key in ("folder", "csv", "shards", "classnames")}
    return {key: str(project / place) for key, place in places.items() if place}


def _timed(folder: Path) -> tuple[float, float]:
    """Seconds of the wall and of the processor that one command takes with all that it starts."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    before, start = _children(), time.perf_counter()
    command = [sys.executable, "-m", "zerovl.cli", "evaluate"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"zerovl evaluate ended with {done.returncode}: {done.stderr[-2000:]}")
    return seconds, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(folder: Path) -> dict[str, bytes]:
    """The files of the report, as bytes by name."""
    reports = folder / "reports/evaluation"
    return {str(path.relative_to(reports)): path.read_bytes() for path in reports.rglob("*") if path.is_file()}


if __name__ == "__main__":
    sys.exit(main())
