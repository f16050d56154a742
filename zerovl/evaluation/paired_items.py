"""Compare a metric of two models by what it counts of each item: the difference with its paired 95% interval.

Both are measured on the same resamples of the same items, so what is hard for both cancels. A metric is linear in its
hits, so one bootstrap of the differences of hits does for both.

Shapes: `n` rows of a metric, `I` items, `D` draws, `C` parts of draws, `T` groups of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zerovl.evaluation.bootstrap import percentile_interval, weights_of_draws
from zerovl.evaluation.figures import Floats, Ints
from zerovl.evaluation.metrics import Interval

_KEY = ("source", "part", "draw", "group", "item", "of")  # equal in two models that were asked the same


@dataclass(frozen=True)
class NotPaired:
    """There is no interval: a word for it, and why, where that is to be told."""

    word: str
    why: str = ""


@dataclass(frozen=True)
class Shape:
    """How a metric is made of its rows, without the hits."""

    row_item: Ints  # (n,)
    row_term: Ints  # (n,)
    of: Floats  # (n,)
    term_cell: Ints  # (T,)
    cell_share: Floats  # (C,)
    items: tuple[int, ...]  # (D,) how many each draw has; they follow each other in `row_item`

    @classmethod
    def of_rows(cls, rows: pa.Table) -> Shape:
        """Make the shape of a metric's rows: over all sources it is the mean of theirs."""
        source, item = (_numbered(rows[name].to_numpy()) for name in ("source", "item"))
        part, draw, group = (rows[name].to_numpy().astype(np.int64) for name in ("part", "draw", "group"))
        draws, row_draw = _distinct(source, draw)  # (D, 2)
        items, row_item = _distinct(row_draw, item)  # (I, 2)
        cells, row_cell = _distinct(part, row_draw)  # (C, 2)
        terms, row_term = _distinct(row_cell, group)  # (T, 2)
        of_source = np.bincount(draws[:, 0])  # draws of each source
        share = 1.0 / (len(of_source) * of_source[draws[cells[:, 1], 0]])
        sizes = np.bincount(items[:, 0]).tolist()
        return cls(row_item, row_term, rows["of"].to_numpy(), terms[:, 0], share, tuple(sizes))

    def value(self, hits: Floats, weights: Floats) -> float:
        """Return the metric of hits (n,) in percent, each item counted `weights` (I,) times."""
        row_weight = weights[self.row_item]
        most = np.bincount(self.row_term, row_weight * self.of, len(self.term_cell))  # (T,)
        drawn = most > 0
        ratio = np.bincount(self.row_term, row_weight * hits, len(self.term_cell))[drawn] / most[drawn]
        cell, cells = self.term_cell[drawn], len(self.cell_share)
        means = np.bincount(cell, ratio, cells) / np.bincount(cell, minlength=cells)  # (C,)
        return float(100.0 * (self.cell_share @ means))


def paired_items(
    ours: pa.Table, theirs: pa.Table, evaluator: str, metric: str, source: str, resamples: int, seed: int
) -> Interval | NotPaired:
    """Return ours - theirs of a metric with its 95% interval, or why there is none.

    Args:
        ours: rows of `items.ITEMS_SCHEMA`.
        theirs: those of the other model.
        evaluator: whose metric it is.
        metric: its name.
        source: of the block; "" for that over all sources, their mean where there are some.
        resamples: of the bootstrap; items are drawn within each draw of each source.
        seed: of the resamples.
    """
    found = [_rows_of(table, evaluator, metric, source) for table in (ours, theirs)]
    if not all(len(rows) for rows in found):
        return NotPaired("no interval")  # a count, or what chance and an untrained model get
    first, second = found
    if not first.select(_KEY).equals(second.select(_KEY)):
        return NotPaired("unpaired", "it was asked of other items")
    shape = Shape.of_rows(first)
    gained = first["hits"].to_numpy() - second["hits"].to_numpy()
    draws = [shape.value(gained, np.concatenate(drawn)) for drawn in weights_of_draws(shape.items, resamples, seed)]
    return percentile_interval(shape.value(gained, np.ones(sum(shape.items))), draws)


def keeps(table: pa.Table, evaluator: str) -> bool:
    """Tell whether there are figures by item of an evaluator."""
    return bool(pc.any(pc.equal(table["evaluator"], evaluator)).as_py())


def same_set(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Tell whether two models were asked the same of a set: its pictures, classes and templates."""
    return all(ours.get(key) == theirs.get(key) for key in ("digest", "templates"))


def _rows_of(table: pa.Table, evaluator: str, metric: str, source: str) -> pa.Table:
    """A metric's rows in an order of their own, so that those of two models stand side by side."""
    wanted = pc.and_(pc.equal(table["evaluator"], evaluator), pc.equal(table["metric"], metric))
    if source:
        wanted = pc.and_(wanted, pc.equal(table["source"], source))
    return table.filter(wanted).sort_by([(name, "ascending") for name in _KEY])


def _numbered(values: Sequence[str]) -> Ints:
    """Number distinct texts (n,) by their order: (n,)."""
    return np.unique(np.asarray(values).astype(str), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _distinct(first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """Return distinct pairs (U, 2) in their order, and which of them each of (n,) rows is."""
    pairs, row = np.unique(np.stack([first, second], axis=1), axis=0, return_inverse=True)
    return pairs, row.reshape(-1).astype(np.int64)
