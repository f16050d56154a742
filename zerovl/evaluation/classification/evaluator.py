"""The evaluator of one set of pictures with classes: its metrics by the set's name, and what its report shows.

{"top1": 63.2, "top1_low": ..., "top1_high": ..., "top5": ..., "mean_class": ..., "untrained_top1": 2.7,
 "probe_top1": 81.0, ..., "untrained_probe_top1": 20.1, "chance_top1": 2.7,
 "pictures": 592, "classes": 37, "broken": 0}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zerovl.evaluation import class_sentences
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.classification.encoding import EncodedPictures, encode_pictures
from zerovl.evaluation.classification.measures import MEASURES, Labelled, Subject
from zerovl.evaluation.classification.paper_probe import Views
from zerovl.evaluation.classification.sets import (
    LabelledPicture,
    LabelledSet,
    place_of,
    read_set,
    require_any,
    require_learnable,
    with_one_picture,
    without_pictures,
)
from zerovl.evaluation.classification.templates import templates_of
from zerovl.evaluation.classification.views import AugmentedViews
from zerovl.evaluation.metrics import Block, Score, Table
from zerovl.files import sha256_json
from zerovl.log import logger
from zerovl.params import ClassificationParams
from zerovl.text_format import names, plural

_NAMED = 5  # broken pictures in a message
_KEPT = 100  # broken pictures in the report
_PROBES = frozenset({"linear_probe", "paper_probe", "paper_probe_augmented"})


@dataclass(frozen=True)
class Classification:
    """Scores classification on a set; its table has the set's name."""

    settings: ClassificationParams
    found: LabelledSet

    @classmethod
    def of(cls, settings: ClassificationParams) -> Classification:
        """List the set; raises `ZeroVLError` where it cannot be used."""
        found = read_set(settings)
        if _PROBES & set(settings.measures) and not found.training:
            require_learnable(place_of(settings), found.classes, [its.label for its in found.pictures], None)
        return cls(settings, found)

    @property
    def name(self) -> str:
        """Return the set's name."""
        return self.settings.name

    def evaluate(self, evaluation: Evaluation) -> Table:
        """Return what `measures` of the set's settings give, chance, and how many pictures and classes there are.

        Raises:
            ZeroVLError: none of the pictures can be read, or there is nothing that a probe learns from.
        """
        classes = self.found.classes
        encoded, pictures = self._encoded(evaluation, self.found.pictures)
        require_any(place_of(self.settings), pictures.labels)
        templates = templates_of(self.settings.templates, self.found.templates)
        models = evaluation.model, evaluation.untrained
        learned, training = self._training(evaluation, pictures)
        ranks, few = evaluation.ranks, self._classes_with_few(pictures, training)
        for sentence in class_sentences.sentences(few) if ranks.is_first else ():
            logger().warning(f"{self.name}: {sentence}")
        views = self._views(evaluation, encoded, learned)
        subject = Subject(evaluation.settings, *models, classes, templates, pictures, training, views, ranks)
        measured = [MEASURES[name](subject) for name in dict.fromkeys(self.settings.measures)]
        block: Block = {
            **{name: score for its in measured for name, score in its.block.items()},
            "chance_top1": Score(100.0 / len(classes)),
            "pictures": Score(len(pictures.labels)),
            "classes": Score(len(classes)),
            "broken": Score(len(encoded.broken)),
        }
        broken = [(self.found.pictures[row].name, reason) for row, reason in encoded.broken[:_KEPT]]
        details: dict[str, Any] = {"digest": self._digest(encoded, learned)} | few
        for its in measured:
            details |= its.details
        details["broken"] = [{"picture": name, "reason": reason} for name, reason in broken]
        figures = [figures for its in measured for figures in its.figures]
        return Table(block, {}, details=details, figures=figures)

    def _training(
        self, evaluation: Evaluation, pictures: Labelled
    ) -> tuple[EncodedPictures, Labelled] | tuple[None, None]:
        """Return the set's own training split where a probe learns from it, else None."""
        if not _PROBES & set(self.settings.measures):
            return None, None
        asked = place_of(self.settings), self.found.classes, pictures.labels.tolist()
        if not self.found.training:
            require_learnable(*asked, None)
            return None, None
        encoded, training = self._encoded(evaluation, self.found.training)
        require_learnable(*asked, training.labels.tolist())
        return encoded, training

    def _classes_with_few(self, pictures: Labelled, training: Labelled | None) -> dict[str, list[str]]:
        """Return the classes without a picture, and those that a probe has one of, by key of `class_sentences`."""
        classes, labels = self.found.classes, pictures.labels.tolist()
        found = {class_sentences.WITHOUT: without_pictures(classes, labels)}
        if training is not None:
            found[class_sentences.SINGLE_IN_TRAIN] = with_one_picture(classes, training.labels.tolist())
        elif _PROBES & set(self.settings.measures):
            found[class_sentences.SINGLE] = with_one_picture(classes, labels)
        return {key: names for key, names in found.items() if names}

    def _encoded(self, evaluation: Evaluation, pictures: Sequence[LabelledPicture]) -> tuple[EncodedPictures, Labelled]:
        """Give pictures to both image towers, each read once."""
        models = evaluation.model, evaluation.untrained
        towers = [model.tower_features for model in models]
        of_files = [labelled.picture for labelled in pictures]
        settings, transform = evaluation.settings, evaluation.model.transform
        encoded = encode_pictures(of_files, transform, towers, settings.batch_size, evaluation.ranks)
        if broken := [f"{pictures[row].name} ({reason})" for row, reason in encoded.broken]:
            count = plural(len(pictures), "picture")
            if evaluation.ranks.is_first:
                logger().warning(f"{self.name}: {len(broken)} of {count} cannot be read: {names(broken, _NAMED)}")
        labels = np.array([labelled.label for labelled in pictures], np.int64)[encoded.rows]
        return encoded, Labelled(encoded.keys, labels, *encoded.outputs)

    def _views(self, evaluation: Evaluation, encoded: EncodedPictures, learned: EncodedPictures | None) -> Views:
        """Return what shows the pictures that a probe learns from augmented, of its split or of the set."""
        listed, rows = (self.found.pictures, encoded.rows) if learned is None else (self.found.training, learned.rows)
        model, settings = evaluation.model, evaluation.settings
        return AugmentedViews(
            [listed[row].picture for row in rows],
            model.tower_features,
            model.transform.image_size,
            settings.batch_size,
            settings.seed,
            evaluation.ranks,
        )

    def _digest(self, encoded: EncodedPictures, learned: EncodedPictures | None) -> str:
        """Equal when and only when two models were asked the same: pictures, classes, and what a probe learned from."""
        covered = [encoded.digest, [labelled.label for labelled in self.found.pictures], self.found.classes]
        if learned:
            covered += [learned.digest, [labelled.label for labelled in self.found.training]]
        return sha256_json(covered)
