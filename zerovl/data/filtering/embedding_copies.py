"""Of pictures whose embeddings are nearly the same the first stays: what is compared within one cluster.

A picture is left out where its cosine to an earlier one that stays is above a bound. So no two that stay are that near,
and each that goes is that near to one that stays. (The paper, SemDeDup, keeps the one farthest from the centroid; the
first is what all filters here keep, and does not depend on where the clusters lie.)

Memory does not grow with the cluster: two blocks of `_BLOCK` embeddings, and their cosines.

Shapes: b pictures of a block, e earlier ones that stay, D width of the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from zerovl.data.filtering.embedding_clusters import Embeddings, Places, Unit, unit_rows

_BLOCK = 1024  # embeddings that are compared at once


@dataclass(frozen=True)
class Copies:
    """Pictures that are left out, the one that stays instead of each (the nearest), and their cosine; (n,) each."""

    places: Places
    twins: Places
    cosines: npt.NDArray[np.float32]

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Return the copies of all parts."""
        empty = np.empty(0, np.int64)
        return cls(
            np.concatenate([empty, *(part.places for part in parts)]),
            np.concatenate([empty, *(part.twins for part in parts)]),
            np.concatenate([np.empty(0, np.float32), *(part.cosines for part in parts)]),
        )


def find_copies(embeddings: Embeddings, cluster: Places, max_cosine: float) -> Copies:
    """Find the copies in a cluster, whose places ascend."""
    stay = np.empty(0, np.int64)
    found: list[Copies] = []
    for start in range(0, len(cluster), _BLOCK):
        block = cluster[start : start + _BLOCK]
        own = unit_rows(embeddings, block)  # (b, D)
        best, twins = np.full(len(block), -np.inf, np.float32), np.full(len(block), -1, np.int64)
        for first in range(0, len(stay), _BLOCK):
            earlier = stay[first : first + _BLOCK]
            cosines = own @ unit_rows(embeddings, earlier).T  # (b, e)
            nearest = np.argmax(cosines, axis=1)
            highest = cosines[np.arange(len(block)), nearest]
            nearer = highest > np.maximum(best, max_cosine)
            best[nearer], twins[nearer] = highest[nearer], earlier[nearest[nearer]]
        _compare_within(own, block, best, twins, max_cosine)
        gone = best > max_cosine
        found.append(Copies(block[gone], twins[gone], best[gone]))
        stay = np.concatenate([stay, block[~gone]])
    return Copies.joined(found)


def _compare_within(own: Unit, block: Places, best: npt.NDArray[np.float32], twins: Places, max_cosine: float) -> None:
    """Go through a block in its order: each that stays takes away those behind it; changes `best` and `twins`."""
    cosines = np.triu(own @ own.T, 1)  # (b, b): of each with those behind it
    for place in np.flatnonzero((cosines > max_cosine).any(axis=1)).tolist():
        if best[place] <= max_cosine:
            nearer = cosines[place] > np.maximum(best, max_cosine)
            best[nearer], twins[nearer] = cosines[place][nearer], block[place]
