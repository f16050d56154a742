"""Find the queries on which subjects disagree most: one finds the right item early, another late.

Shapes: `S` subjects, `Q` queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from zerovl.evaluation.metrics import OVERALL

Place = tuple[str, int]  # source and image_id


@dataclass(frozen=True)
class Disagreement:
    """A query with the place at which each subject puts the right item, in the source alone."""

    direction: str  # i2t | t2i
    source: str
    image_id: int
    caption: int | None  # which of the picture's captions asks, from 0; None where the picture does
    ranks: tuple[float, ...]  # expected places, from 1

    @property
    def best(self) -> int:
        """Return the number of the subject that finds it first."""
        return int(np.argmin(self.ranks))


def find(
    tables: Sequence[pa.Table], count: int, shown: Callable[[str, int], bool], direction: str
) -> list[Disagreement]:
    """Return for each subject at most `count` queries of a direction that it finds and others do not, the widest first.

    How far apart they are is the difference of 1 / rank: between places 1 and 10 it is wide, between 100 and 200 it is
    not. `tables` are queries of the same models' data in the same order; those of pictures that are not `shown`, by
    source and image_id, are left out.
    """
    first = tables[0]
    wanted = (first["direction"].to_numpy() == direction) & (first["pool"].to_numpy() != OVERALL)  # (Q,)
    rows = np.flatnonzero(wanted)
    ranks = np.stack([table["rank"].to_numpy()[rows] for table in tables])  # (S, Q)
    spread = (1.0 / ranks).max(axis=0) - (1.0 / ranks).min(axis=0)  # (Q,)
    best = ranks.argmin(axis=0)  # (Q,)
    sources, ids, captions = (first[name].take(rows).to_pylist() for name in ("source", "image_id", "caption"))
    found: list[Disagreement] = []
    for subject in range(len(tables)):
        left = count
        for row in np.argsort(-np.where(best == subject, spread, 0.0), kind="stable"):
            if not left or best[row] != subject or spread[row] <= 0:
                break
            if shown(sources[row], ids[row]):
                left -= 1
                places = tuple(float(rank) for rank in ranks[:, row])
                found.append(Disagreement(direction, sources[row], ids[row], captions[row], places))
    return found
