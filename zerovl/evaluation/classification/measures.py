"""What is measured of a set of pictures with classes, by name: zero-shot classification, a linear probe.

Shapes: `n` pictures that can be read, `w` width of the image tower, `D` of the embeddings, `C` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.bootstrap import Floats
from zerovl.evaluation.classification import paper_probe
from zerovl.evaluation.classification.linear_probe import FOLDS, Fit, Probed, fit, probe
from zerovl.evaluation.classification.zero_shot import (
    MEAN_CLASS,
    TOP1,
    accuracies,
    accuracy_intervals,
    by_class,
    class_embeddings,
    hits_of,
    predicted,
)
from zerovl.evaluation.figures import Figures
from zerovl.evaluation.metrics import Block, Interval, Score
from zerovl.evaluation.pool import Ints
from zerovl.model.encoder import Encoder
from zerovl.params import EvaluateParams

_PAIRS = 100  # of classes that are taken for each other, in the report


@dataclass(frozen=True)
class Labelled:
    """Pictures with their classes, as image towers see them."""

    keys: tuple[str, ...]  # (n,) by their bytes
    labels: Ints  # (n,)
    trained: torch.Tensor  # (n, w) of the model's tower
    untrained: torch.Tensor  # (n, w) of the untrained model's


@dataclass(frozen=True)
class Subject:
    """What is measured: a model and an untrained one on a set."""

    settings: EvaluateParams
    model: Encoder
    untrained: Encoder
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    pictures: Labelled
    training: Labelled | None  # of a training split, where the set has one
    views: paper_probe.Views  # of `training`, or of the pictures where there is none; all ranks ask for an epoch's
    ranks: Ranks = ALONE  # who measure it together; all have the same pictures


@dataclass(frozen=True)
class Measured:
    """Metrics by name, what the report has beside them, and what they count of each picture."""

    block: Block
    details: Mapping[str, Any]
    figures: Sequence[Figures] = ()


class Measure(Protocol):
    """Measures one thing of a set."""

    def __call__(self, subject: Subject) -> Measured:
        """Return its metrics and details."""
        ...


def zero_shot(subject: Subject) -> Measured:
    """Classify by captions that name the classes (see `zero_shot.py`): `top1`, `top5`, `mean_class`."""
    settings, classes, labels = subject.settings, subject.classes, subject.pictures.labels
    hits, guesses = _by_captions(subject, subject.model, subject.pictures.trained)
    untrained, _ = _by_captions(subject, subject.untrained, subject.pictures.untrained)
    intervals = accuracy_intervals(hits, labels, len(classes), settings.bootstrap, settings.seed)
    block = {
        **{name: _score(its) for name, its in intervals.items()},
        f"untrained_{TOP1}": Score(accuracies(untrained, labels, len(classes))[TOP1]),
    }
    details = {
        "templates": list(subject.templates),
        "classes": _class_rows(classes, by_class(hits[TOP1], labels, len(classes)), labels),
        "confusions": _confusions(classes, labels, guesses),
    }
    return Measured(block, details, _figures(subject.pictures, hits))


def linear_probe(subject: Subject) -> Measured:
    """Classify by a linear layer on the image tower (see `linear_probe.py`): `probe_top1`."""
    if not subject.ranks.is_first:
        return Measured({}, {})  # the first rank alone keeps what is measured, and one fit takes all of a processor
    labels, training = subject.pictures.labels, subject.training
    of_training = None if training is None else training.untrained
    found = _probed(subject, subject.pictures.trained, None if training is None else training.trained, fit)
    untrained = _probed(subject, subject.pictures.untrained, of_training, fit)
    score, figures = _of_probe("probe_top1", subject, found)
    block = {
        "probe_top1": score,
        "untrained_probe_top1": Score(100.0 * float(untrained.right(labels).mean())),
    }
    details = {"penalties": list(found.penalties), "trained_on": _trained_on(subject)}
    return Measured(block, {"linear_probe": details}, [figures])


def by_papers_recipe(subject: Subject) -> Measured:
    """Classify by a layer fitted as the paper does (see `paper_probe.py`): `paper_probe_top1`."""
    if not subject.ranks.is_first:
        return Measured({}, {})  # as `linear_probe`
    training = subject.training
    of_training = None if training is None else training.trained
    found = _probed(subject, subject.pictures.trained, of_training, paper_probe.fit)
    score, figures = _of_probe("paper_probe_top1", subject, found)
    return Measured({"paper_probe_top1": score}, {"paper_probe": {"trained_on": _trained_on(subject)}}, [figures])


def by_papers_recipe_augmented(subject: Subject) -> Measured:
    """Classify so by layers that see each picture augmented, as the paper has it: `paper_probe_augmented_top1`."""
    if not subject.ranks.is_first:
        for epoch in range(paper_probe.EPOCHS):
            subject.views(epoch)  # this rank's share of them
        return Measured({}, {})
    pictures, training, seed = subject.pictures, subject.training, subject.settings.seed
    device = subject.model.device
    learned = None if training is None else (training.trained.to(device), training.labels)
    features = pictures.trained.to(device)
    found = paper_probe.probe_by_views(features, pictures.labels, learned, seed, subject.views)
    score, figures = _of_probe("paper_probe_augmented_top1", subject, found)
    details = {"paper_probe_augmented": {"trained_on": _trained_on(subject)}}
    return Measured({"paper_probe_augmented_top1": score}, details, [figures])


MEASURES: dict[str, Measure] = {
    "zero_shot": zero_shot,
    "linear_probe": linear_probe,
    "paper_probe": by_papers_recipe,
    "paper_probe_augmented": by_papers_recipe_augmented,
}


def _probed(subject: Subject, features: torch.Tensor, of_training: torch.Tensor | None, fit: Fit) -> Probed:
    """What layers say of features (n, w), learned from a training split's or from the other folds."""
    device, training = subject.model.device, subject.training
    learned = None if training is None or of_training is None else (of_training.to(device), training.labels)
    return probe(features.to(device), subject.pictures.labels, learned, subject.settings.seed, fit)


def _figures(pictures: Labelled, hits: Mapping[str, Floats]) -> list[Figures]:
    """What `accuracies` of hits (n,) by name count of each picture."""
    found = [Figures(name, pictures.keys, its) for name, its in hits.items()]
    return [*found, Figures(MEAN_CLASS, pictures.keys, hits[TOP1], group=pictures.labels)]


def _of_probe(name: str, subject: Subject, found: Probed) -> tuple[Score, Figures]:
    """The metric of a probe, and whether it is right about each picture that it is scored on."""
    labels, settings = subject.pictures.labels, subject.settings
    right, asked = found.right(labels).astype(np.float64), labels[found.scored]
    intervals = accuracy_intervals({TOP1: right}, asked, len(subject.classes), settings.bootstrap, settings.seed)
    keys = tuple(key for key, scored in zip(subject.pictures.keys, found.scored, strict=True) if scored)
    return _score(intervals[TOP1]), Figures(name, keys, right)


def _trained_on(subject: Subject) -> str:
    training = subject.training
    return f"{FOLDS} folds of the set itself" if training is None else f"{len(training.labels)} pictures of train"


def _by_captions(subject: Subject, model: Encoder, features: torch.Tensor) -> tuple[dict[str, Floats], Ints]:
    """Hits by name (n,), and the class that each picture is taken for (n,)."""
    settings = subject.settings
    images = torch.cat([model.embed_features(part) for part in features.split(settings.chunk)])  # (n, D)
    # (C, D)
    of_classes = class_embeddings(model, subject.classes, subject.templates, settings.batch_size, subject.ranks)
    hits = hits_of(images, of_classes, subject.pictures.labels, settings.chunk)
    return hits, predicted(images, of_classes, settings.chunk)


def _score(interval: Interval) -> Score:
    return Score(interval.value, interval.low, interval.high)


def _class_rows(classes: Sequence[str], shares: Floats, labels: Ints) -> list[dict[str, Any]]:
    """Accuracy of each class that has pictures, the lowest first."""
    counts = np.bincount(labels, minlength=len(classes))
    rows = [
        {"class": name, TOP1: round(float(share), 2), "pictures": int(count)}
        for name, share, count in zip(classes, shares, counts, strict=True)
        if count
    ]
    return sorted(rows, key=lambda row: (row[TOP1], row["class"]))


def _confusions(classes: Sequence[str], labels: Ints, guesses: Ints) -> list[dict[str, Any]]:
    """Pairs of classes by how many pictures of one were taken for the other, most first."""
    counts = np.bincount(labels, minlength=len(classes))
    wrong = labels != guesses
    pairs, times = np.unique(np.stack([labels[wrong], guesses[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")[:_PAIRS]
    return [
        {"class": classes[right], "taken_for": classes[guess], "pictures": int(count), "of": int(counts[right])}
        for (right, guess), count in zip(pairs.T[order], times[order], strict=True)
    ]
