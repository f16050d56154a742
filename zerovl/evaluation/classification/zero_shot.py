"""Classify pictures by captions that name the classes, without training on a single one of them.

The embedding of a class is the normalised mean of the normalised embeddings of its captions, one a template, and the
class of a picture is the one with the highest cosine: Radford et al., Learning Transferable Visual Models From Natural
Language Supervision (arXiv 2103.00020), section 3.1.4. Classes with the same name tie, and ties count by their expected
value, as in `evaluation.ranking`.

Shapes: `N` pictures, `C` classes, `T` templates, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.bootstrap import Floats, percentile_interval, weights_of_draws
from zerovl.evaluation.classification.templates import fill
from zerovl.evaluation.metrics import Interval
from zerovl.evaluation.pool import Ints, TextModel, encode_texts
from zerovl.evaluation.ranking import rank

TOP1, TOP5, MEAN_CLASS = "top1", "top5", "mean_class"
_FIVE = 5


def class_embeddings(
    model: TextModel, classes: Sequence[str], templates: Sequence[str], batch_size: int, ranks: Ranks = ALONE
) -> torch.Tensor:
    """Embed classes by their names, normalised, (C, D); equal names give bit-equal rows. Ranks share the captions."""
    return class_means(encode_texts(class_captions(classes, templates), model, batch_size, ranks), classes)


def class_captions(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return the captions that name the classes, T of each distinct name."""
    return [fill(template, name) for name in dict.fromkeys(classes) for template in templates]


def class_means(caption_emb: torch.Tensor, classes: Sequence[str]) -> torch.Tensor:
    """Return the embeddings of classes, normalised, (C, D), from those of `class_captions`."""
    place = {name: row for row, name in enumerate(dict.fromkeys(classes))}
    each = caption_emb.view(len(place), -1, caption_emb.shape[1])  # (distinct names, T, D)
    means = torch.nn.functional.normalize(each.mean(1), dim=1)
    return means[[place[name] for name in classes]]


def hits_of(image_emb: torch.Tensor, class_emb: torch.Tensor, labels: Ints, chunk: int) -> dict[str, Floats]:
    """Return whether each picture's class is the first, and among the first five where there are more: (N,), 0 to 1.

    Args:
        image_emb: (N, D).
        class_emb: (C, D).
        labels: (N,) the right class of each picture.
        chunk: pictures scored at once.
    """
    ranking = rank(image_emb, class_emb, labels, np.arange(len(class_emb)), chunk)
    hits = {TOP1: ranking.hits(1)}
    return hits | ({TOP5: ranking.hits(_FIVE)} if len(class_emb) > _FIVE else {})


def predicted(image_emb: torch.Tensor, class_emb: torch.Tensor, chunk: int) -> Ints:
    """Return the class of each picture, the first one of those that tie: (N,)."""
    parts = [(part @ class_emb.T).argmax(1) for part in image_emb.split(chunk)]
    return torch.cat(parts).numpy().astype(np.int64)


def accuracies(hits: Mapping[str, Floats], labels: Ints, classes: int) -> dict[str, float]:
    """Return the mean of hits (N,) by name in percent, and that of `top1` over the means of the classes.

    Classes without a picture do not count.
    """
    return _weighted(hits, labels, classes, np.ones(len(labels)))


def accuracy_intervals(
    hits: Mapping[str, Floats], labels: Ints, classes: int, resamples: int, seed: int
) -> dict[str, Interval]:
    """Return `accuracies` with their 95% intervals by the bootstrap over pictures.

    All metrics are measured on the same draws; the same seed gives the same draws, for another model too.
    """
    values = accuracies(hits, labels, classes)
    draws: dict[str, list[float]] = {name: [] for name in values}
    for (weights,) in weights_of_draws([len(labels)], resamples, seed):
        for name, value in _weighted(hits, labels, classes, weights).items():
            draws[name].append(value)
    return {name: percentile_interval(value, draws[name]) for name, value in values.items()}


def by_class(top1: Floats, labels: Ints, classes: int) -> Floats:
    """Return the accuracy of each class in percent, (C,); NaN for one without a picture."""
    counts = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore"):
        shares: Floats = 100.0 * np.bincount(labels, weights=top1, minlength=classes) / counts
    return shares


def _weighted(hits: Mapping[str, Floats], labels: Ints, classes: int, weights: Floats) -> dict[str, float]:
    """Accuracies with each picture counted `weights` (N,) times."""
    values = {name: float(100.0 * (weights @ its) / weights.sum()) for name, its in hits.items()}
    counts = np.bincount(labels, weights=weights, minlength=classes)  # (C,)
    sums = np.bincount(labels, weights=weights * hits[TOP1], minlength=classes)
    drawn = counts > 0
    return values | {MEAN_CLASS: float(100.0 * (sums[drawn] / counts[drawn]).mean())}
