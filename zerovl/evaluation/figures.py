"""Define what a metric is a mean of, item by item: the form in which evaluators hand it on.

A metric of a block, in percent, is the sum over parts of the mean over draws of the mean over groups of
sum(hits) / sum(of). Most have one part, one draw and one group, and `of` is 1: then it is the mean of the hits.

Shapes: `n` rows, one an item and part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """What one metric of an evaluator counts of each item."""

    metric: str
    items: Sequence[str]  # (n,) what names an item: the same for another model
    hits: Floats  # (n,)
    of: Floats | None = None  # (n,) what the hits are at most, 1 each where it is None
    source: str = ""  # of the block; "" where the evaluator has no sources
    draw: int = 0  # items of one draw are drawn among each other, as the pictures of a fold are
    group: Ints | None = None  # (n,) the metric is a mean over groups, as over classes; one group where it is None
    part: int = 0  # the metric is a sum of parts, as RSUM is of both directions
