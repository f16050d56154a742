"""Classify some pictures of the sets in `evaluate.classification` while training: a curve a set.

Where all pictures of a set take part, its fast linear probe is fitted too, if the set asks for it: another curve.

Shapes: `n` pictures of a set, `D` embedding width, `w` width of the image tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zerovl.distributed.ranks import Ranks
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.encoding import read_batches
from zerovl.evaluation.classification.sets import (
    LabelledPicture,
    LabelledSet,
    place_of,
    read_set,
    require_learnable,
)
from zerovl.evaluation.classification.templates import templates_of
from zerovl.evaluation.classification.zero_shot import TOP1, accuracies, class_captions, class_means, hits_of
from zerovl.evaluation.pool import Ints
from zerovl.evaluation.sharing import facts_of_all
from zerovl.files import sha256_json
from zerovl.model.preprocess import EvaluationTransform
from zerovl.model.text import CaptionTokenizer
from zerovl.params import ClassificationParams, Params
from zerovl.text_format import plural
from zerovl.training.passes import PASS, Passes, Towers
from zerovl.training.probe_check import MEASURE, LabelledPasses, ProbeCheck


def column(name: str) -> str:
    """Return the column of the log for a set."""
    return f"valid_{name}_{TOP1}"


def probe_column(name: str) -> str:
    """Return the column of the log for a set's linear probe."""
    return f"valid_{name}_probe_{TOP1}"


def is_column(name: str) -> bool:
    """Tell whether a column of the log is a set's."""
    return name.startswith("valid_") and name.endswith(f"_{TOP1}")


@dataclass(frozen=True)
class SetCheck:
    """Some pictures of a set and the captions of its classes, decoded and tokenised once."""

    name: str
    classes: tuple[str, ...]
    labels: Ints  # (n,)
    pictures: Passes  # n of them
    captions: Passes  # `class_captions`
    probe: ProbeCheck | None = None

    def score(self, towers: Towers) -> dict[str, float]:
        """Return the share of pictures, in percent, whose class comes first, by column of the log; a collective."""
        features = towers.image_features(self.pictures)  # (n, w)
        images = towers.embedded(features)  # (n, D)
        of_classes = class_means(towers.captions(self.captions), self.classes)
        hits = hits_of(images, of_classes, self.labels, PASS)
        found = {column(self.name): accuracies({TOP1: hits[TOP1]}, self.labels, len(self.classes))[TOP1]}
        if self.probe is not None:
            found[probe_column(self.name)] = self.probe.top1(self.labels, features, towers)
        return found


def read_checks(params: Params, tokenizer: CaptionTokenizer, ranks: Ranks) -> list[SetCheck]:
    """Read the pictures that are classified, each rank those of its passes; a collective.

    Returns none where `train.valid_set_pictures` is 0.

    Raises:
        ZeroVLError: a set cannot be used, two have one column, or ranks list one differently.
    """
    sets = _sets(params)
    names = {settings.name for settings, _ in sets}
    for settings, found in sets:
        if _is_probed(params, settings, found) and f"{settings.name}_probe" in names:
            raise ZeroVLError(
                f"evaluate.classification: {settings.name} and {settings.name}_probe: in training the probe of one and "
                f"the other set have one column, {probe_column(settings.name)}; rename one of them"
            )
    checks = (_read_check(params, *its, tokenizer, ranks) for its in sets)
    return [check for check in checks if len(check.labels)]


def _read_check(
    params: Params, settings: ClassificationParams, found: LabelledSet, tokenizer: CaptionTokenizer, ranks: Ranks
) -> SetCheck:
    _require_same(settings, found, ranks)
    chosen = [found.pictures[row] for row in _spread(len(found.pictures), params.train.valid_set_pictures)]
    read = _read_pictures(chosen, params, ranks)
    captions = class_captions(found.classes, templates_of(settings.templates, found.templates))
    return SetCheck(
        settings.name,
        found.classes,
        read.labels,
        read.pictures,
        Passes.of_captions(captions, tokenizer, ranks),
        _read_probe(params, settings, found, read, ranks) if _is_probed(params, settings, found) else None,
    )


def _read_pictures(chosen: Sequence[LabelledPicture], params: Params, ranks: Ranks) -> LabelledPasses:
    """Read pictures, each rank those of its passes, without those that cannot be read; a collective."""
    transform = EvaluationTransform.of(params.model)
    read = list(read_batches([its.picture for its in chosen], transform, PASS, ranks))
    readable = facts_of_all([[broken is None for _, broken in batch.facts] for batch in read], ranks)
    rows = np.flatnonzero([its for batch in readable for its in batch])
    return LabelledPasses(
        np.array([its.label for its in chosen], np.int64)[rows],
        Passes.of_pixels([sum(batch) for batch in readable], [its.pixels for its in read], params.model.image_size),
    )


def _read_probe(
    params: Params, settings: ClassificationParams, found: LabelledSet, read: LabelledPasses, ranks: Ranks
) -> ProbeCheck:
    """Read what a probe learns from; raises `ZeroVLError` where that is too little, as `zerovl evaluate` would."""
    training = _read_pictures(found.training, params, ranks) if found.training else None
    learned = None if training is None else training.labels.tolist()
    require_learnable(place_of(settings), found.classes, read.labels.tolist(), learned)
    return ProbeCheck(training, params.evaluate.seed)


def _is_probed(params: Params, settings: ClassificationParams, found: LabelledSet) -> bool:
    """Whether the fast linear probe is fitted on the way: where it is asked for, and all of its pictures take part."""
    return MEASURE in settings.measures and _all_pictures(found) <= params.train.valid_set_pictures


def _all_pictures(found: LabelledSet) -> int:
    """Return what `train.valid_set_pictures` must be for all pictures of a set, of either split, to take part."""
    return max(len(found.pictures), len(found.training))


def _require_same(settings: ClassificationParams, found: LabelledSet, ranks: Ranks) -> None:
    """Raise `ZeroVLError`, on all ranks, where they list a set differently: nodes have copies of their own."""
    named, training = (
        [[picture.name, picture.label] for picture in pictures] for pictures in (found.pictures, found.training)
    )
    learned = training if MEASURE in settings.measures else []
    own = [sha256_json([found.classes, found.templates, named, learned]), len(named), len(found.classes)]
    first, *others = facts_of_all([own], ranks)
    for rank, (digest, pictures, classes) in enumerate(others, 1):
        if digest != first[0]:
            raise ZeroVLError(
                f"evaluate.classification: {settings.name}: rank {rank} lists {pictures:,} pictures of {classes:,} "
                f"classes in {settings.folder or settings.csv or settings.shards}, rank 0 {first[1]:,} of "
                f"{first[2]:,}, and names, classes and templates must be the same; copy the set to every node"
            )


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
            f"of {len(found.classes):,} classes{_probe_sentence(params, settings, found)}"
        )
    return said


def _probe_sentence(params: Params, settings: ClassificationParams, found: LabelledSet) -> str:
    if MEASURE not in settings.measures:
        return ""
    if not _is_probed(params, settings, found):
        return f"; its linear probe waits for `zerovl evaluate`, for with fewer than all {_all_pictures(found):,} " + (
            "pictures (train.valid_set_pictures) it is another one"
        )
    more = f", with {plural(len(found.training), 'picture')} of its train split" if found.training else ""
    return f", and fits its linear probe{more}"


def _sets(params: Params) -> list[tuple[ClassificationParams, LabelledSet]]:
    if not params.train.valid_set_pictures or not params.train.valid_checks:
        return []
    return [(settings, read_set(settings)) for settings in params.evaluate.classification]


def _spread(pictures: int, wanted: int) -> Ints:
    """Rows evenly spread over a set, which is in the order of its classes."""
    return np.unique(np.linspace(0, pictures - 1, min(wanted, pictures)).astype(np.int64))
