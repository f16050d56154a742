"""Cut the pictures of a source into folds, and rank each fold alone.

Shapes: `I` images, `M` captions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.pool import Embeddings, Ints, Pool
from zerovl.evaluation.retrieval import RetrievalResult, retrieval_metrics, take_rows


@dataclass(frozen=True)
class Fold:
    """Rows of a pool that are searched alone."""

    images: Ints  # (I',)
    captions: Ints  # (M',)


def folds_of(pool: Pool, source: str, pictures: int) -> list[Fold]:
    """Return the whole folds of a source: `pictures` at a time, in the order in which the pictures first appear."""
    images, captions = pool.images_of(source), pool.captions_of(source)
    number = _numbers(pool.group[images])  # (I,)
    place = dict(zip(pool.group[images].tolist(), number.tolist(), strict=True))  # of a picture among the source's
    of_captions = np.array([place[group] for group in pool.group[pool.caption_image[captions]].tolist()], np.int64)
    count = (int(number.max(initial=-1)) + 1) // pictures
    return [
        Fold(images[number // pictures == fold], captions[of_captions // pictures == fold]) for fold in range(count)
    ]


def rank_fold(pool: Pool, embeddings: Embeddings, fold: Fold, chunk: int, ranks: Ranks = ALONE) -> RetrievalResult:
    """Rank the captions and pictures of a fold for each other."""
    ids = pool.group[fold.images], pool.group[pool.caption_image[fold.captions]]
    values = take_rows(embeddings.image, fold.images), take_rows(embeddings.text, fold.captions)
    return retrieval_metrics(*values, *ids, chunk=chunk, ranks=ranks)


def _numbers(groups: Ints) -> Ints:
    """Number distinct values (I,) from 0 by their first appearance: (I,)."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    by_appearance = np.empty(len(first), np.int64)
    by_appearance[np.argsort(first)] = np.arange(len(first))
    numbers: Ints = by_appearance[inverse.reshape(-1)]
    return numbers
