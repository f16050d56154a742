"""The linear probes beside each other on labelled photographs, through a pretrained tower: see docs/evaluation.md.

    python -m benchmarks.probes --sets grocery=DIR caltech=DIR --weights tf_efficientnet_lite0.safetensors

A DIR has a folder a class. All probes are scored by the same five folds; beside each top-1 stands its own 95% interval,
and the difference to the fast probe with that of the pairs. The tower is random where `--weights` is not given.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import RESULTS, Record, Results, rounded
from zerovl.evaluation.bootstrap import Floats
from zerovl.evaluation.classification import linear_probe, paper_probe
from zerovl.evaluation.classification.encoding import PixelEncoder, encode_pictures
from zerovl.evaluation.classification.sets import LabelledSet, read_set
from zerovl.evaluation.classification.views import AugmentedViews
from zerovl.evaluation.classification.zero_shot import TOP1, accuracy_intervals
from zerovl.evaluation.pool import Ints
from zerovl.model.preprocess import EvaluationTransform
from zerovl.model.towers import timm_tower
from zerovl.model.weight_files import load_image_weights
from zerovl.params import ClassificationParams

BATCH = 32


@dataclass(frozen=True)
class Settings:
    tower: str = "tf_efficientnet_lite0"
    pixels: int = 64
    seed: int = 0
    resamples: int = 1000


@dataclass(frozen=True)
class Probes:
    """What the probes of one set work on."""

    settings: Settings
    features: Tensor  # (n, w)
    labels: Ints  # (n,)
    classes: int
    views: paper_probe.Views

    def fast(self) -> Ints:
        return self._of_features(linear_probe.fit)

    def paper(self) -> Ints:
        return self._of_features(paper_probe.fit)

    def paper_augmented(self) -> Ints:
        its = self.settings.seed, self.views
        return paper_probe.probe_by_views(self.features, self.labels, None, *its).predicted

    def _of_features(self, fit: linear_probe.Fit) -> Ints:
        return linear_probe.probe(self.features, self.labels, None, self.settings.seed, fit).predicted


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=DIR", help="a folder a class in each DIR")
    parser.add_argument("--weights", type=Path, help="safetensors of the tower")
    parser.add_argument("--tower", default=Settings.tower, help="an image tower of timm")
    parser.add_argument("--pixels", type=int, default=Settings.pixels, help="side of the pictures")
    parser.add_argument("--out", type=Path, default=RESULTS / "probes.json", help="result file")
    options = parser.parse_args(arguments)
    settings = Settings(options.tower, options.pixels)
    encode = tower(settings, options.weights)
    results = Results(options.out, {**asdict(settings), "pretrained": options.weights is not None})
    for name, _, folder in (given.partition("=") for given in options.sets):
        found = read_set(ClassificationParams(name=name, folder=folder))
        try_all(results, name, prepared(found, encode, settings))
    return results.status()


def tower(settings: Settings, weights: Path | None) -> PixelEncoder:
    """Return what makes pixels, uint8 (m, 3, H, W), features (m, w); mean and deviation are 0.5."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = timm_tower(settings.tower, {}, pretrained=False).eval()
    if weights:
        load_image_weights(model, weights)

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        features: Tensor = model(pixels.float() / 127.5 - 1.0)
        return features

    return encode


def prepared(found: LabelledSet, encode: PixelEncoder, settings: Settings) -> Probes:
    """Give the pictures of a set to the tower once, as evaluation sees them."""
    pictures = [its.picture for its in found.pictures]
    encoded = encode_pictures(pictures, EvaluationTransform(settings.pixels, settings.pixels), [encode], BATCH)
    labels = np.array([its.label for its in found.pictures], np.int64)[encoded.rows]
    views = AugmentedViews([pictures[row] for row in encoded.rows], encode, settings.pixels, BATCH, settings.seed)
    return Probes(settings, encoded.outputs[0], labels, len(found.classes), views)


def try_all(results: Results, name: str, probes: Probes) -> None:
    """Add a record a probe; the fast one is what the others are compared with."""
    ways: dict[str, Callable[[], Ints]] = {
        "fast": probes.fast,
        "paper": probes.paper,
        "paper augmented": probes.paper_augmented,
    }
    hits: dict[str, Floats] = {}
    for way, predict in ways.items():
        start = time.process_time()
        hits[way] = (predict() == probes.labels).astype(np.float64)  # (n,)
        seconds = time.process_time() - start
        results.add(name, way, scored(probes, hits[way], hits["fast"], seconds))


def scored(probes: Probes, hits: Floats, fast: Floats, seconds: float) -> Record:
    """Return top-1 in percent with its interval, and what it is above the fast probe's, with that of the pairs.

    `hits` and those of the fast probe are 0 or 1 a picture, (n,).
    """
    return {
        "pictures": len(probes.labels),
        "classes": probes.classes,
        "top1": _interval(probes, hits),
        "over_fast": _interval(probes, hits - fast),
        "cpu_seconds": rounded(seconds),
    }


def _interval(probes: Probes, values: Floats) -> list[float]:
    """Mean of values (n,) in percent, with the ends of its 95% interval; the same draws for all values."""
    its = probes.settings
    found = accuracy_intervals({TOP1: values}, probes.labels, probes.classes, its.resamples, its.seed)[TOP1]
    return [round(value, 2) for value in (found.value, found.low, found.high)]


if __name__ == "__main__":
    sys.exit(main())
