"""What the demo's model is worth with other seeds and on other processors: the figures of the README.

    python -m benchmarks.demo_scores --work FOLDER

Five seeds of training as this machine is, and seed 0 on machines that it imitates: kernels for AVX2, kernels for any
x86-64, one thread. The data are drawn once. A run that `benchmarks/results/demo.json` has already, with the
same parameters and data, is not made again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.common import RESULTS, zerovl_to_log
from benchmarks.kept_runs import write_runs, write_table
from zerovl import params, params_file
from zerovl.files import read_json, sha256_json

FILE, TABLE = RESULTS / "demo.json", RESULTS / "demo.md"
SEEDS = range(5)
_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
_ANY = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
MACHINES: dict[str, dict[str, str]] = {
    "AVX2": _AVX2,
    "no AVX": _ANY,
    "1 thread": {"OMP_NUM_THREADS": "1"},
}
AS_IS = "as it is"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    work = parser.parse_args().work.resolve()
    data = draw(work)
    runs = read_json(FILE)["runs"] if FILE.is_file() else {}
    wanted = [(AS_IS, seed) for seed in SEEDS] + [(name, 0) for name in MACHINES]
    for name, seed in wanted:
        key = sha256_json([name, seed, data, _shaping(seed)])[:16]
        if key not in runs:
            runs[key] = {"machine": name, "seed": seed, **measure(work, settings(seed), MACHINES.get(name, {}))}
            write_runs(FILE, runs)
            print(f"{name}, seed {seed}: RSUM {runs[key]['rsum']:.1f}", flush=True)
    keys = [sha256_json([name, seed, data, _shaping(seed)])[:16] for name, seed in wanted]
    write_runs(FILE, {key: runs[key] for key in keys})  # without those of other parameters or data
    write_table(TABLE, table([runs[key] for key in keys]))
    return 0


def table(runs: list[dict[str, Any]]) -> str:
    """One line a run, then what all of them come to."""
    sources = sorted(runs[0]["sources"])
    lines = [
        f"| machine | seed | RSUM, mean of sources | {' | '.join(sources)} |",
        "|---|---|---|" + "---|" * len(sources),
    ]
    for run in runs:
        cells = [f"{run['sources'][name]:.1f}" for name in sources]
        lines.append(f"| {run['machine']} | {run['seed']} | {run['rsum']:.1f} | {' | '.join(cells)} |")
    values = [run["rsum"] for run in runs]
    lines += [
        "",
        f"{len(values)} runs: mean {fmean(values):.1f}, standard deviation {stdev(values):.1f}, "
        f"lowest {min(values):.1f}, highest {max(values):.1f}.",
    ]
    return "\n".join(lines) + "\n"


def settings(seed: int, *changes: str) -> params.Params:
    """Return the demo's parameters with another seed and with changes."""
    return params_file.from_recipe({}, [f"train.seed={seed}", *changes], "demo")


def draw(work: Path) -> str:
    """Draw, pack and validate the demo's pairs, and return the digest of the packed data."""
    work.mkdir(parents=True, exist_ok=True)
    params_file.write(settings(0), work / "params.yaml")
    for command in ("demo-data", "prepare", "validate"):
        zerovl_to_log(work, command, os.environ)
    return str(read_json(work / "data" / "manifest" / "manifest.json")["digest"])


def measure(work: Path, settings: params.Params, environment: Mapping[str, str]) -> dict[str, Any]:
    """Train on what `draw` made, and return RSUM, the mean of the sources and each source's."""
    shutil.rmtree(work / "runs", ignore_errors=True)  # the same run on another machine would be found finished
    params_file.write(settings, work / "params.yaml")
    for command in ("train", "evaluate"):
        zerovl_to_log(work, command, {**os.environ, **environment})
    metrics = read_json(work / "reports" / "evaluation" / "metrics.json")
    return {
        "rsum": metrics["mean"]["rsum"],
        "sources": {name: block["rsum"] for name, block in metrics["sources"].items()},
    }


def _shaping(seed: int) -> dict[str, Any]:
    chosen = settings(seed)
    return {"model": params.as_dict(chosen.model), "train": params.as_dict(chosen.train)}


if __name__ == "__main__":
    sys.exit(main())
