"""What `train.equal_pairs: positives` brings where a quarter of the captions repeat: the table of docs/training.md.

    python -m benchmarks.equal_pairs --work FOLDER

`ikea` alone (product photographs whose captions are often the name of a material), EfficientNet-Lite0 and MiniLM of
`make towers` frozen, two projections on stored features. Each kind of batch tries the same learning rates with a seed
of its own, for equal pairs as negatives and as positives alike; the best is taken for all seeds. A run that
`results/equal_pairs.json` has already is not made again.

Softmax without mixup is there as a check: captions that are equal have one and the same feature, and the targets of
`positives` then add up to those of `negatives`, so both train the same model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from statistics import fmean

from benchmarks.ablation import RECIPE, SETTINGS, SOURCES, TUNING_SEED
from benchmarks.ablation_runs import Fold, measure, prepare
from benchmarks.ablation_table import difference
from benchmarks.common import RESULTS
from benchmarks.kept_runs import Run, known_runs, options_of, write_runs, write_table

FILE, TABLE = RESULTS / "equal_pairs.json", RESULTS / "equal_pairs.md"
SOURCE = "ikea"
SEEDS = range(6)
RATES = (5e-4, 1e-3, 2e-3, 4e-3)
EQUAL_PAIRS = ("negatives", "positives")
_BASE = [
    *SETTINGS["frozen"].base,
    "train.sampling=debiased",
    "train.image_dropout=0.5",
]
KINDS = {  # a loss, and the epochs that make some 250 steps of its batch
    "softmax, 128 pairs": ["train.batch_size=128", "train.epochs=20.0"],
    "softmax, 128 pairs, mixup of texts": ["train.batch_size=128", "train.epochs=20.0", "train.mixup=text"],
    "sigmoid, 512 pairs": ["train.batch_size=512", "train.epochs=80.0", "train.loss=sigmoid"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, then write the table."""
    options = options_of(__doc__).parse_args(arguments)
    raw = {SOURCE: options.shared / SOURCES[SOURCE]}
    fold = prepare(options.work, RECIPE, raw, options.towers)
    runs = known_runs(FILE)
    for run in made(fold, runs):
        runs.append(run)
        write_runs(FILE, runs)
        told = f"{run['kind']}, {run['equal_pairs']}, seed {run['seed']}, lr {run['lr']:g}"
        print(f"{told}: {run['rsum']:.1f}", flush=True)
    write_table(TABLE, table(runs))
    return 0


def made(fold: Fold, known: Sequence[Run]) -> Iterator[Run]:
    """Make each run that is not known: of each variant those that choose its rate first, then those of the seeds."""
    runs = list(known)
    for kind in KINDS:
        for equal_pairs in EQUAL_PAIRS:
            for seed, rate in _wanted(runs, kind, equal_pairs):
                head = {"kind": kind, "equal_pairs": equal_pairs, "seed": seed, "lr": rate}
                if not any(run.items() >= head.items() for run in runs):
                    runs.append(head | _measured(fold, head))
                    yield runs[-1]


def _wanted(runs: Sequence[Run], kind: str, equal_pairs: str) -> Iterator[tuple[int, float]]:
    """Yield seed and rate of a variant's runs; `runs` has those of the tuning seed once the others are asked for."""
    yield from ((TUNING_SEED, rate) for rate in RATES)
    best = chosen_rate(_of(runs, kind, equal_pairs))
    yield from ((seed, best) for seed in SEEDS)


def _measured(fold: Fold, head: Run) -> Run:
    own = [f"train.{name}={head[name]}" for name in ("equal_pairs", "seed", "lr")]
    found = measure(fold, fold.settings(RECIPE, [*_BASE, *KINDS[head["kind"]], *own]))
    return {"steps": found["steps"], "rsum": found["sources"][SOURCE]}


def chosen_rate(runs: Sequence[Run]) -> float:
    """Return the rate of the best tuning run of a variant."""
    best = max((run for run in runs if run["seed"] == TUNING_SEED), key=lambda run: float(run["rsum"]))
    return float(best["lr"])


def table(runs: Sequence[Run]) -> str:
    """Return a line a variant: its rate, the mean over seeds, and how much more positives give by seed."""
    lines = ["| loss and batch | equal pairs | lr | steps | seeds | RSUM | difference |", "|---" * 7 + "|"]
    for kind in KINDS:
        before: list[float] = []
        for equal_pairs in EQUAL_PAIRS:
            own = _of(runs, kind, equal_pairs)
            rate = chosen_rate(own)
            by_seed = {run["seed"]: run for run in own if run["lr"] == rate and run["seed"] != TUNING_SEED}
            chosen = [by_seed[seed] for seed in SEEDS]
            values = [run["rsum"] for run in chosen]
            cells = [kind, equal_pairs, f"{rate:g}", f"{chosen[0]['steps']}", f"{len(values)}", f"{fmean(values):.1f}"]
            lines.append(f"| {' | '.join(cells)} | {difference(values, before)} |")
            before = values
    return "\n".join(lines) + "\n"


def _of(runs: Sequence[Run], kind: str, equal_pairs: str) -> list[Run]:
    return [run for run in runs if (run["kind"], run["equal_pairs"]) == (kind, equal_pairs)]


if __name__ == "__main__":
    sys.exit(main())
