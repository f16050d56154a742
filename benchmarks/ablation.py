"""What each part of the method brings, from pretrained towers: the table of docs/results.md.

    python -m benchmarks.ablation --work FOLDER --jobs 2

Seven sources (photographs, emoji of four vendors) and the towers of `make towers`. Each variant adds one part to the
one before it, at equal numbers of pairs seen. Settings: `frozen` trains two projections on stored features,
`temperature` the same with a temperature that starts and learns as open_clip's does, `learning` the towers too, on
pictures of 64 pixels. Beside `frozen` stands open_clip's own trainer on the same features, for as many steps. Each
seed leaves another source out, which is scored as unseen.

Equal tuning: each variant tries the same learning rates with a seed of its own, and the best by the mean over the
sources that it saw is taken for all seeds. It is judged on the validation pairs that are reported, for all variants.
What `benchmarks/results/ablation.json` has already, with the same parameters and data, is not run again; an
interrupted run resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks import open_clip_run
from benchmarks.ablation_runs import Fold, measure, prepare, share_features
from benchmarks.ablation_table import STUDENT_T, beside, seen, table
from benchmarks.common import HERE, RESULTS, NotMeasured
from benchmarks.kept_runs import options_of, write_runs, write_table
from zerovl import params
from zerovl.files import read_json, sha256_json

FILE, TABLE = RESULTS / "ablation.json", RESULTS / "ablation.md"
RECIPE = HERE.parent / "recipes" / "photos.yaml"
SOURCES = {
    "flickr8k": "photos/flickr8k",
    "ikea": "photos/ikea",
    **{name: f"data/{name}" for name in ("fsa_color", "noto", "openmoji", "fluent3d", "fluentflat")},
}
HELD_OUT = ("fluentflat", "ikea", "noto")  # by seed, in turn
TUNING_SEED = 100
OPEN_CLIP = "open_clip's trainer"
_OF_MODEL = ("embed_dim", "temperature", "image_size", "resize_size", "max_tokens")


@dataclass(frozen=True)
class Setting:
    """What all variants share, what each adds to the ones before it, and the rates that each may choose from."""

    base: Sequence[str]
    variants: Mapping[str, Sequence[str]]
    rates: Sequence[float]

    def overrides(self, variant: str) -> list[str]:
        """Return what a variant sets, with all that those before it set."""
        names = list(self.variants)
        added = [self.variants[name] for name in names[: names.index(variant) + 1]]
        return [*self.base, *(override for overrides in added for override in overrides)]


_COMMON = [
    "train.sampling=shuffled",
    "train.mixup=none",
    "train.step=plain",
    "train.batch_size=128",
    "train.augment.crop_scale=[1.0,1.0]",
    "train.augment.mask_probability=0.0",
    "train.augment.flip_probability=0.0",
    "train.image_size=0",
    "train.image_dropout=0.0",
    "train.valid_checks=0",
    "train.pair_order=drawn",
    "model.temperature=0.05",
    "machine.ranks=1",
]
_FROZEN = [
    *_COMMON,
    "train.epochs=6.0",
    "train.freeze=[image,text]",
    "train.fine_tuning.freeze_image_blocks=0",
    "train.fine_tuning.freeze_text_blocks=0",
]
_LARGE = ["train.step=decoupled", "train.batch_size=1024", "train.micro_batch=128"]
SETTINGS = {
    "frozen": Setting(
        _FROZEN,
        {
            "shuffled": [],
            "+ debiased sampling": ["train.sampling=debiased"],
            "+ mixup of texts": ["train.mixup=text"],
            "+ dropout of features": ["train.image_dropout=0.5"],
            "+ decoupled, batch 1024": _LARGE,
            "the same, eight times the pairs": ["train.epochs=48.0"],
        },
        (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    ),
    # There the temperature's logarithm learns: a step of the rate moves it by the rate's share of itself.
    "temperature": Setting(
        [*_FROZEN, "model.temperature=0.07", "train.fine_tuning.temperature_lr_scale=0.07"],
        {
            "shuffled": [],
            "+ debiased sampling": ["train.sampling=debiased"],
            "+ dropout of features": ["train.image_dropout=0.5"],
        },
        (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    ),
    "learning": Setting(
        [*_COMMON, "train.epochs=3.0", "model.image_size=64", "model.resize_size=68"],
        {
            "shuffled": [],
            "+ debiased sampling": ["train.sampling=debiased"],
            "+ coin-flipping mixup": ["train.mixup=coin"],
            "+ augmentation": ["train.augment.crop_scale=[0.6,1.0]", "train.augment.mask_probability=0.2"],
            "+ decoupled, batch 1024": _LARGE,
        },
        (1e-3, 2e-3, 4e-3),
    ),
}


def main() -> int:
    """Run what is missing, then write the table."""
    arguments = _arguments()
    raw = {name: arguments.shared / path for name, path in SOURCES.items()}
    work, towers = arguments.work, arguments.towers
    frozen = {"frozen", "temperature"} & set(arguments.settings)
    folds = [prepare(work / f"without-{name}", RECIPE, raw, towers, name) for name in HELD_OUT]
    donors = [folds[0], _alone(work / f"only-{HELD_OUT[0]}", raw, towers)] if frozen else []
    results = Results(read_json(FILE)["runs"] if FILE.is_file() else {})
    for name in arguments.settings:
        setting = SETTINGS[name]
        rates = {variant: _tuned(results, folds[0], name, variant) for variant in setting.variants}
        for fold in folds[1:]:
            share_features(fold, donors)
        with ThreadPoolExecutor(arguments.jobs) as pool:  # the runs of a fold share a folder: one after the other
            seeds = range(arguments.seeds)
            jobs = [
                pool.submit(_run, results, fold, name, rates, seeds[number :: len(folds)])
                for number, fold in enumerate(folds)
            ]
        for job in jobs:
            job.result()
        if name == "frozen":
            _beside_open_clip(results, folds, rates["shuffled"], range(arguments.seeds))
    names = {name: list(setting.variants) for name, setting in SETTINGS.items()}
    runs = list(results.runs.values())
    text = table(runs, names, TUNING_SEED) + beside(runs, OPEN_CLIP, TUNING_SEED)
    write_table(TABLE, text)
    return 0


def _alone(folder: Path, raw: Mapping[str, Path], towers: Path) -> Fold:
    """Return a fold of the one source that the first fold lacks, with the features of its training pairs."""
    fold = prepare(folder, RECIPE, {HELD_OUT[0]: raw[HELD_OUT[0]]}, towers)
    if not any((folder / "runs" / "features").glob("text-*")):
        measure(fold, fold.settings(RECIPE, [*SETTINGS["frozen"].base, "train.epochs=1.0"]))
    return fold


def _arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=len(HELD_OUT), choices=range(1, max(STUDENT_T) + 1))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    return parser.parse_args()


class Results:
    """The runs that are there, by a digest of what their scores depend on; each is written as it ends."""

    def __init__(self, runs: dict[str, Any]) -> None:
        self.runs, self._lock = runs, Lock()

    def get(self, fold: Fold, setting: str, variant: str, seed: int, rate: float) -> dict[str, Any]:
        """Return what is known of a run; make it where nothing is."""
        changes = [*SETTINGS[setting].overrides(variant), f"train.seed={seed}", f"train.lr={rate}"]
        wanted = fold.settings(RECIPE, changes)
        train, model = params.as_dict(wanted.train), params.as_dict(wanted.model)
        key = sha256_json([fold.digest, train, {name: model[name] for name in _OF_MODEL}])[:16]
        if key not in self.runs:
            head = {"setting": setting, "variant": variant, "seed": seed, "held_out": fold.held_out, "lr": rate}
            self._keep(key, head | measure(fold, wanted))
        return dict(self.runs[key])

    def of_open_clip(self, fold: Fold, seed: int, rate: float, steps: int) -> dict[str, Any]:
        """Return what is known of a run of open_clip's trainer; make it where nothing is. Raises `NotMeasured`."""
        key = sha256_json([fold.digest, OPEN_CLIP, seed, rate, steps])[:16]
        if key not in self.runs:
            head = {"setting": "frozen", "variant": OPEN_CLIP, "seed": seed, "held_out": fold.held_out, "lr": rate}
            self._keep(key, head | open_clip_run.measure(fold, rate, seed, steps))
        return dict(self.runs[key])

    def _keep(self, key: str, run: dict[str, Any]) -> None:
        with self._lock:
            self.runs[key] = run
            write_runs(FILE, self.runs)
        told = f"{run['setting']}, {run['variant']}, seed {run['seed']}, lr {run['lr']:g}: RSUM {seen(run):.1f}"
        print(told, flush=True)


def _beside_open_clip(results: Results, folds: Sequence[Fold], shuffled: float, seeds: Sequence[int]) -> None:
    """Run open_clip's trainer for the steps of the shuffled variant, its rate chosen from the same ones."""

    def run(fold: Fold, seed: int, rate: float, rate_of_ours: float) -> dict[str, Any]:
        steps = results.get(fold, "frozen", "shuffled", seed, rate_of_ours)["steps"]
        return results.of_open_clip(fold, seed, rate, int(steps))

    rates = SETTINGS["frozen"].rates
    try:
        scores = {rate: seen(run(folds[0], TUNING_SEED, rate, rate)) for rate in rates}
        best = max(rates, key=lambda rate: scores[rate])
        for seed in seeds:
            run(folds[seed % len(folds)], seed, best, shuffled)
    except NotMeasured as error:
        print(f"{OPEN_CLIP}: not measured, {error}")


def _tuned(results: Results, fold: Fold, setting: str, variant: str) -> float:
    """Return the rate of the best mean over the sources that were seen."""
    scores = {rate: seen(results.get(fold, setting, variant, TUNING_SEED, rate)) for rate in SETTINGS[setting].rates}
    return max(scores, key=lambda rate: scores[rate])


def _run(results: Results, fold: Fold, setting: str, rates: Mapping[str, float], seeds: Sequence[int]) -> None:
    for seed in seeds:
        for variant, rate in rates.items():
            results.get(fold, setting, variant, seed, rate)


if __name__ == "__main__":
    sys.exit(main())
