"""What BatchNorm costs where a batch comes from one source, and what frozen statistics and GroupNorm give.

    python -m benchmarks.batch_norm --work FOLDER

From random weights: the demo, whose image tower has GroupNorm, against the same tower with BatchNorm. From published
weights: EfficientNet-Lite0, both towers learn as in the ablation's setting `learning`, with the statistics that it
came with against those of each micro-batch. Each with debiased and with shuffled batches, by the same seeds; scored
as released models are, in evaluation mode. A run that `results/batch_norm.json` has already is not made again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks import demo_scores
from benchmarks.ablation import HELD_OUT, RECIPE, SETTINGS, SOURCES
from benchmarks.ablation_runs import measure, prepare
from benchmarks.ablation_table import seen
from benchmarks.common import RESULTS
from benchmarks.kept_runs import Run, known_runs, options_of, write_runs, write_table

FILE, TABLE = RESULTS / "batch_norm.json", RESULTS / "batch_norm.md"
SEEDS = range(len(HELD_OUT))
SAMPLINGS = ("debiased", "shuffled")
SCRATCH = {
    "GroupNorm": "model.image_tower.options.norm_layer=groupnorm",
    "BatchNorm": "model.image_tower.options.norm_layer=batchnorm",
}
PUBLISHED = {
    "BatchNorm, frozen": "model.image_tower.batch_norm=frozen",
    "BatchNorm": "model.image_tower.batch_norm=train",
}
FROM = {"random weights": SCRATCH, "published weights": PUBLISHED}
RATE = 2e-3  # what `learning` chose for debiased batches


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, then write the table."""
    options = options_of(__doc__).parse_args(arguments)
    runs = known_runs(FILE)
    known = {tuple(run[name] for name in ("from", "norm", "sampling", "seed")) for run in runs}
    for run in made(options.work, options.shared, options.towers, known):
        runs.append(run)
        write_runs(FILE, runs)
        print(f"{run['from']}, {run['norm']}, {run['sampling']}, seed {run['seed']}: {run['rsum']:.1f}", flush=True)
    write_table(TABLE, table(runs))
    return 0


def made(work: Path, shared: Path, towers: Path, known: set[tuple[Any, ...]]) -> Iterator[Run]:
    """Make each run that is not known."""
    missing = [
        (beginning, norm, sampling, seed)
        for sampling in SAMPLINGS
        for seed in SEEDS
        for beginning, norms in FROM.items()
        for norm in norms
        if (beginning, norm, sampling, seed) not in known
    ]
    if any(beginning == "random weights" for beginning, *_ in missing):
        demo_scores.draw(work / "demo")
    for beginning, norm, sampling, seed in missing:
        change = FROM[beginning][norm]
        score = _demo if beginning == "random weights" else _photographs
        rsum = score(work, shared, towers, seed, [change, f"train.sampling={sampling}"])
        yield {"from": beginning, "norm": norm, "sampling": sampling, "seed": seed, "rsum": rsum}


def _demo(work: Path, _shared: Path, _towers: Path, seed: int, changes: Sequence[str]) -> float:
    found = demo_scores.measure(work / "demo", demo_scores.settings(seed, *changes), {})
    return float(found["rsum"])


def _photographs(work: Path, shared: Path, towers: Path, seed: int, changes: Sequence[str]) -> float:
    held_out = HELD_OUT[seed]
    raw = {name: shared / path for name, path in SOURCES.items()}
    fold = prepare(work / f"without-{held_out}", RECIPE, raw, towers, held_out)
    base = [*SETTINGS["learning"].base, f"train.seed={seed}", f"train.lr={RATE}"]
    return seen({**measure(fold, fold.settings(RECIPE, [*base, *changes])), "held_out": held_out})


def table(runs: Sequence[Run]) -> str:
    """Return a line a variant: the mean over seeds, and the difference by seed to the first norm of its block."""
    lines = ["| weights at the start | norm | batches | seeds | RSUM | difference |", "|---" * 6 + "|"]
    for beginning, norms in FROM.items():
        first = next(iter(norms))
        for sampling in SAMPLINGS:
            base = _by_seed(runs, beginning, first, sampling)
            for norm in norms:
                own = _by_seed(runs, beginning, norm, sampling)
                if own:
                    differences = [own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())]
                    cell = "" if norm == first else _spread(differences)
                    lines.append(
                        f"| {beginning} | {norm} | {sampling} | {len(own)} | {fmean(own.values()):.1f} | {cell} |"
                    )
    return "\n".join(lines) + "\n"


def _by_seed(runs: Sequence[Run], beginning: str, norm: str, sampling: str) -> dict[int, float]:
    wanted = (beginning, norm, sampling)
    return {run["seed"]: run["rsum"] for run in runs if (run["from"], run["norm"], run["sampling"]) == wanted}


def _spread(differences: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds."""
    if len(differences) < 2:
        return "".join(f"{value:+.1f}" for value in differences)
    return f"{fmean(differences):+.1f} (SD {stdev(differences):.1f})"


if __name__ == "__main__":
    sys.exit(main())
