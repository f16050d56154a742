"""The evaluator of one set of pictures with classes: its metrics by the set's name, and what its report shows.

{"top1": 63.2, "top1_low": ..., "top1_high": ..., "top5": ..., "mean_class": ...,
 "untrained_top1": 2.7, "chance_top1": 2.7, "pictures": 592, "classes": 37, "broken": 0}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.bootstrap import Floats
from zerovl.evaluation.classification.encoding import EncodedPictures, encode_pictures
from zerovl.evaluation.classification.sets import LabelledSet, read_set, require_pictures
from zerovl.evaluation.classification.templates import templates_of
from zerovl.evaluation.classification.zero_shot import (
    TOP1,
    accuracies,
    accuracy_intervals,
    by_class,
    class_embeddings,
    hits_of,
    predicted,
)
from zerovl.evaluation.metrics import Block, Score, Table
from zerovl.evaluation.pool import Ints
from zerovl.files import sha256_json
from zerovl.log import logger
from zerovl.params import ClassificationParams
from zerovl.text_format import names, plural

_NAMED = 5  # broken pictures in a message
_KEPT = 100  # broken pictures, and pairs of classes, in the report


@dataclass(frozen=True)
class Classification:
    """Scores zero-shot classification on a set; its table has the set's name."""

    settings: ClassificationParams
    found: LabelledSet

    @classmethod
    def of(cls, settings: ClassificationParams) -> Classification:
        """List the set; raises `ZeroVLError` where it cannot be used."""
        return cls(settings, read_set(settings))

    @property
    def name(self) -> str:
        """Return the set's name."""
        return self.settings.name

    def evaluate(self, evaluation: Evaluation) -> Table:
        """Return top-1, top-5 and the mean over classes, an untrained model's top-1 and chance.

        Raises:
            ZeroVLError: none of the pictures of a class can be read.
        """
        settings, classes = evaluation.settings, self.found.classes
        models = (evaluation.model, evaluation.untrained)
        pictures = [labelled.picture for labelled in self.found.pictures]
        encoders = [model.encode_pixels for model in models]
        encoded = encode_pictures(pictures, evaluation.model.transform, encoders, settings.batch_size)
        labels = np.array([labelled.label for labelled in self.found.pictures], np.int64)[encoded.rows]  # (n,)
        self._tell_broken(encoded)
        require_pictures(self._place, classes, labels.tolist())

        templates = templates_of(self.settings.templates, self.found.templates)
        texts = [class_embeddings(model, classes, templates, settings.batch_size) for model in models]  # (C, D) each
        hits, untrained = (
            hits_of(images, of_classes, labels, settings.chunk)
            for images, of_classes in zip(encoded.outputs, texts, strict=True)
        )
        intervals = accuracy_intervals(hits, labels, len(classes), settings.bootstrap, settings.seed)
        block: Block = {
            **{name: Score(its.value, its.low, its.high) for name, its in intervals.items()},
            f"untrained_{TOP1}": Score(accuracies(untrained, labels, len(classes))[TOP1]),
            f"chance_{TOP1}": Score(100.0 / len(classes)),
            "pictures": Score(len(labels)),
            "classes": Score(len(classes)),
            "broken": Score(len(encoded.broken)),
        }
        guesses = predicted(encoded.outputs[0], texts[0], settings.chunk)
        details = {
            "digest": self._digest(encoded, templates),
            "templates": list(templates),
            "classes": _class_rows(classes, by_class(hits[TOP1], labels, len(classes)), labels),
            "confusions": _confusions(classes, labels, guesses),
            "broken": [{"picture": name, "reason": reason} for name, reason in self._broken(encoded)[:_KEPT]],
        }
        return Table(block, {}, details=details)

    @property
    def _place(self) -> str:
        return self.settings.folder or self.settings.csv or self.settings.shards

    def _broken(self, encoded: EncodedPictures) -> list[tuple[str, str]]:
        return [(self.found.pictures[row].name, reason) for row, reason in encoded.broken]

    def _tell_broken(self, encoded: EncodedPictures) -> None:
        if broken := [f"{name} ({reason})" for name, reason in self._broken(encoded)]:
            count = plural(len(self.found.pictures), "picture")
            logger().warning(f"{self.name}: {len(broken)} of {count} cannot be read: {names(broken, _NAMED)}")

    def _digest(self, encoded: EncodedPictures, templates: tuple[str, ...]) -> str:
        """Equal when and only when two models were asked the same: pictures, classes, templates."""
        labels = [labelled.label for labelled in self.found.pictures]
        return sha256_json([encoded.digest, labels, self.found.classes, templates])


def _class_rows(classes: tuple[str, ...], shares: Floats, labels: Ints) -> list[dict[str, Any]]:
    """Accuracy of each class, the lowest first."""
    counts = np.bincount(labels, minlength=len(classes))
    rows = [
        {"class": name, TOP1: round(float(share), 2), "pictures": int(count)}
        for name, share, count in zip(classes, shares, counts, strict=True)
    ]
    return sorted(rows, key=lambda row: (row[TOP1], row["class"]))


def _confusions(classes: tuple[str, ...], labels: Ints, guesses: Ints) -> list[dict[str, Any]]:
    """Pairs of classes by how many pictures of one were taken for the other, most first."""
    counts = np.bincount(labels, minlength=len(classes))
    wrong = labels != guesses
    pairs, times = np.unique(np.stack([labels[wrong], guesses[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")[:_KEPT]
    return [
        {
            "class": classes[right],
            "taken_for": classes[guess],
            "pictures": int(times[place]),
            "of": int(counts[right]),
        }
        for place, (right, guess) in zip(order, pairs.T[order], strict=True)
    ]
