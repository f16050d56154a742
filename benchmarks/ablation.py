"""What each part of the method brings on small real data: the results table of the README.

    python benchmarks/ablation.py --data ../shared/data --jobs 2

Four variants by `recipes/small-real.yaml`, three seeds each, equal numbers of pairs seen: (a) shuffled
batches, no mixup, plain step; (b) + debiased sampling; (c) + coin-flipping mixup; (d) + decoupled
accumulation at a batch 8 times larger. Every run is `zerovl train` and `zerovl evaluate` on one
thread. What `benchmarks/results/ablation.json` has already, with the same parameters and data, is
not run again; an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from zerovl import params, params_file
from zerovl.files import read_json, sha256_json, write_json

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent / "recipes" / "small-real.yaml"
RESULTS = HERE / "results" / "ablation.json"
TABLE = HERE / "results" / "ablation.md"
BATCH, LARGE_BATCH = 64, 512
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # 95%, two-sided, for n seeds
PLAIN = ["train.step=plain", f"train.batch_size={BATCH}", "train.micro_batch=64"]
VARIANTS = {
    "a: shuffled": ["train.sampling=shuffled", "train.mixup=none", *PLAIN],
    "b: + debiased sampling": ["train.sampling=debiased", "train.mixup=none", *PLAIN],
    "c: + coin-flipping mixup": ["train.sampling=debiased", "train.mixup=coin", *PLAIN],
    f"d: + decoupled, batch {LARGE_BATCH}": [
        "train.sampling=debiased",
        "train.mixup=coin",
        "train.step=decoupled",
        f"train.batch_size={LARGE_BATCH}",
        "train.micro_batch=64",
    ],
}


@dataclass(frozen=True)
class Run:
    variant: str
    seed: int
    settings: params.Params
    folder: Path
    key: str  # digest of everything that the scores depend on


def main() -> int:
    arguments = _arguments()
    work = Path(arguments.work).resolve()
    data = str(Path(arguments.data).resolve())
    _prepare(work / "prepared", data)
    digest = read_json(work / "prepared" / "data" / "manifest" / "manifest.json")["digest"]
    known = read_json(RESULTS)["runs"] if RESULTS.is_file() else {}
    runs = [
        _plan(work, variant, overrides, seed, data, digest)
        for seed in range(arguments.seeds)
        for variant, overrides in VARIANTS.items()
    ]
    missing = [run for run in runs if run.key not in known]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are there, {len(missing)} to go", flush=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for run, result in zip(missing, pool.map(_measure, missing), strict=True):
            known[run.key] = {"variant": run.variant, "seed": run.seed, **result}
            write_json(RESULTS, {"machine": _machine(), "runs": known})
            print(f"{run.variant}, seed {run.seed}: RSUM {result['overall']['rsum']:.1f}", flush=True)
    table = _table([known[run.key] for run in runs])
    TABLE.write_text(table, encoding="utf-8")
    print(table)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(HERE.parent.parent / "shared" / "data"), help="folder of the raw sources")
    parser.add_argument("--work", default=str(HERE / "work"), help="scratch folder")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, max(STUDENT_T) + 1))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    return parser.parse_args()


def _prepare(folder: Path, data: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = params_file.from_recipe(params_file.read_yaml(RECIPE), [f"data.raw={data}"], str(RECIPE))
    file = folder / "params.yaml"
    before = params_file.load(file) if file.is_file() else None
    params_file.write(recipe, file)
    if before != recipe or not (folder / "reports" / "validation" / "verdict.json").is_file():
        _zerovl("prepare", folder)
        _zerovl("validate", folder)


def _plan(work: Path, variant: str, overrides: list[str], seed: int, data: str, digest: str) -> Run:
    changes = [*overrides, f"data.raw={data}", f"train.seed={seed}", f"evaluate.seed={seed}", "machine.ranks=1"]
    settings = params_file.from_recipe(params_file.read_yaml(RECIPE), changes, str(RECIPE))
    shaping = {
        "model": params.as_dict(settings.model),
        "train": params.as_dict(settings.train),
        "evaluate": params.as_dict(settings.evaluate),
        "data": digest,
    }
    folder = work / f"{variant[0]}-{seed}"
    return Run(variant, seed, settings, folder, sha256_json(shaping)[:16])


def _measure(run: Run) -> dict[str, Any]:
    prepared = run.folder.parent / "prepared"
    (run.folder / "reports").mkdir(parents=True, exist_ok=True)
    for name in ("data", "reports/validation"):
        link = run.folder / name
        if not link.is_symlink():
            link.symlink_to(prepared / name)
    params_file.write(run.settings, run.folder / "params.yaml")
    _zerovl("train", run.folder)
    _zerovl("evaluate", run.folder)
    metrics = read_json(run.folder / "reports" / "evaluation" / "metrics.json")
    training = read_json(run.folder / "reports" / "training" / "metrics.json")
    kept = ("rsum", "untrained_rsum", "chance_rsum", "i2t_r1", "t2i_r1")
    return {
        "pairs_seen": training["pairs_seen"],
        "steps": training["steps"],
        "overall": {key: metrics["overall"][key] for key in kept},
        "sources": {name: {key: block[key] for key in kept} for name, block in metrics["sources"].items()},
    }


def _zerovl(command: str, folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / f"{command}.log", "w", encoding="utf-8") as log:
        done = subprocess.run(
            [sys.executable, "-m", "zerovl.cli", command],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"zerovl {command} failed in {folder}:\n{(folder / f'{command}.log').read_text()[-2000:]}")


def _machine() -> dict[str, Any]:
    packages = ("torch", "timm", "transformers", "numpy")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads_a_run": 1,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _table(results: list[dict[str, Any]]) -> str:
    sources = sorted(results[0]["sources"])
    lines = [
        "| variant | steps | over all | " + " | ".join(sources) + " |",
        "|---|---|---|" + "---|" * len(sources),
    ]
    for variant in VARIANTS:
        rows = [row for row in results if row["variant"] == variant]
        cells = [_interval([row["overall"]["rsum"] for row in rows])]
        cells += [_interval([row["sources"][name]["rsum"] for row in rows]) for name in sources]
        lines.append(f"| {variant} | {rows[0]['steps']} | " + " | ".join(cells) + " |")
    for label, key in (("untrained", "untrained_rsum"), ("chance", "chance_rsum")):
        cells = [f"{fmean(row['overall'][key] for row in results):.1f}"]
        cells += [f"{fmean(row['sources'][name][key] for row in results):.1f}" for name in sources]
        lines.append(f"| {label} | | " + " | ".join(cells) + " |")
    seeds = len({row["seed"] for row in results})
    pairs = sorted({row["pairs_seen"] for row in results})
    lines += ["", f"RSUM, mean ± half of the 95% t-interval over {seeds} seeds; pairs seen: {pairs}."]
    return "\n".join(lines) + "\n"


def _interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{fmean(values):.1f} ± {STUDENT_T[len(values)] * stdev(values) / sqrt(len(values)):.1f}"


if __name__ == "__main__":
    sys.exit(main())
