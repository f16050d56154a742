"""Classify some pictures of the sets in `evaluate.classification` while training: a curve a set.

Shapes: `n` pictures of a set, `D` embedding width, `H` and `W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zerovl.data.raw.records import Picture
from zerovl.evaluation.classification.encoding import encode_pictures
from zerovl.evaluation.classification.sets import LabelledSet, read_set
from zerovl.evaluation.classification.templates import templates_of
from zerovl.evaluation.classification.zero_shot import TOP1, accuracies, class_embeddings, hits_of
from zerovl.evaluation.pool import Ints
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.preprocess import EvaluationTransform
from zerovl.model.text import CaptionTokenizer
from zerovl.params import ClassificationParams, Params
from zerovl.text_format import plural

_PASS = 100  # pictures or captions embedded at once


def column(name: str) -> str:
    """Return the column of the log for a set."""
    return f"valid_{name}_{TOP1}"


def is_column(name: str) -> bool:
    """Tell whether a column of the log is a set's."""
    return name.startswith("valid_") and name.endswith(f"_{TOP1}")


@dataclass(frozen=True)
class Towers:
    """The model as it is in training, as what scores a set asks for it; runs inside the caller's `no_grad`."""

    model: DualEncoder
    tokenizer: CaptionTokenizer
    alive: Callable[[], None]  # called before each pass: scoring many pictures is progress too

    def encode_pixels(self, images: Tensor) -> Tensor:
        """Embed uint8 pixels (n, 3, H, W): (n, D), on the CPU."""
        return torch.cat([self._embed(self.model.encode_image, part) for part in images.split(_PASS)])

    def encode_text(self, captions: Sequence[str], batch_size: int = _PASS) -> Tensor:
        """Embed captions: (n, D), on the CPU."""
        ids, mask = (torch.from_numpy(array) for array in self.tokenizer(list(captions)))
        parts = zip(ids.split(batch_size), mask.split(batch_size), strict=True)
        return torch.cat([self._embed(self.model.encode_text, *part) for part in parts])

    def _embed(self, encode: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        self.alive()
        return encode(*(part.to(self.model.temperature.device) for part in parts)).float().cpu()


@dataclass(frozen=True)
class SetCheck:
    """Some pictures of a set, decoded once."""

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    pixels: Tensor  # (n, 3, H, W) uint8
    labels: Ints  # (n,)

    def score(self, towers: Towers) -> dict[str, float]:
        """Return the share of pictures, in percent, whose class comes first, by column of the log."""
        images = towers.encode_pixels(self.pixels)  # (n, D)
        of_classes = class_embeddings(towers, self.classes, self.templates, _PASS)
        hits = hits_of(images, of_classes, self.labels, _PASS)
        return {column(self.name): accuracies({TOP1: hits[TOP1]}, self.labels, len(self.classes))[TOP1]}


def read_checks(params: Params) -> list[SetCheck]:
    """Read the pictures that are classified; none where `train.valid_set_pictures` is 0.

    Raises:
        ZeroVLError: a set cannot be used.
    """
    transform = EvaluationTransform(params.model.image_size, params.model.resize_size)
    checks = []
    for settings, found in _sets(params):
        chosen = [found.pictures[row] for row in _spread(len(found.pictures), params.train.valid_set_pictures)]
        pictures: list[Picture] = [its.picture for its in chosen]
        encoded = encode_pictures(pictures, transform, [lambda pixels: pixels], _PASS)
        labels = np.array([its.label for its in chosen], np.int64)[encoded.rows]
        if len(labels):
            templates = templates_of(settings.templates, found.templates)
            checks.append(SetCheck(settings.name, found.classes, templates, encoded.outputs[0], labels))
    return checks


def describe(params: Params, sources: Sequence[str]) -> list[str]:
    """Return for the block at the start what each set costs a check, a sentence a set.

    `sources` are those with a valid split; without any there are no checks.
    """
    sets = _sets(params)
    if sets and not sources:
        names = ", ".join(settings.name for settings, _ in sets)
        return [
            f"{names} not classified on the way: that goes along with the checks of valid pairs, and no source has a "
            "valid split (prepare.draw_valid draws one)"
        ]
    said = []
    for settings, found in sets:
        pictures = len(_spread(len(found.pictures), params.train.valid_set_pictures))
        captions = len(set(found.classes)) * len(templates_of(settings.templates, found.templates))
        said.append(
            f"{settings.name} is classified too: each of {plural(params.train.valid_checks, 'check')} embeds "
            f"{pictures:,} of its {plural(len(found.pictures), 'picture')} and {plural(captions, 'caption')} "
            f"of {len(found.classes):,} classes"
        )
    return said


def _sets(params: Params) -> list[tuple[ClassificationParams, LabelledSet]]:
    if not params.train.valid_set_pictures or not params.train.valid_checks:
        return []
    return [(settings, read_set(settings)) for settings in params.evaluate.classification]


def _spread(pictures: int, wanted: int) -> Ints:
    """Rows evenly spread over a set, which is in the order of its classes."""
    return np.unique(np.linspace(0, pictures - 1, min(wanted, pictures)).astype(np.int64))
