"""Read the curves of a training from its log, and draw them as the pages show them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, POOL
from zerovl.evaluation.report import charts
from zerovl.files import read_json_lines

# Why the last point is not the headline: it stands wherever the two can be seen together.
OF_A_SAMPLE = (
    "The score during training is of a fixed sample: evenly spread validation pairs, each picture with its first "
    "caption alone. There is less to choose from than in the evaluation, so score and chance are mostly above those of "
    "the headline."
)
MAX_DOTS = 60  # points of a curve that are marked one by one


@dataclass(frozen=True)
class Curves:
    """What training logged, one (step, value) a point."""

    loss: list[tuple[float, float]]
    score: list[tuple[float, float]]  # the headline metric on a sample of the validation pairs
    chance: list[tuple[float, float]] = field(default_factory=list)  # what a random order gets on that sample
    of_several: bool = True  # sources, whose mean the score is


@dataclass(frozen=True)
class Drawn:
    """A chart with its title and what has to be said of it."""

    title: str
    note: str
    svg: str


def read_curves(path: Path) -> Curves:
    """Read the curves of a training log; empty where there is none."""
    return curves_of(read_json_lines(path))


def curves_of(rows: Sequence[Mapping[str, Any]]) -> Curves:
    """Return the curves of a training log's rows."""
    score, pool = f"valid_{HEADLINE.name}", f"valid_{POOL}_{HEADLINE.name}"
    pools = [(row[score], row[pool]) for row in rows if is_number(row.get(score)) and is_number(row.get(pool))]
    loss, points, chance = (_points(rows, name) for name in ("loss", score, f"valid_{HEADLINE.chance}"))
    of_several = not pools or not all(math.isclose(mean, whole) for mean, whole in pools)  # of one both are equal
    return Curves(loss, points, chance, of_several)


def draw(curves: Curves) -> Iterator[Drawn]:
    """Draw the loss, and the score with its chance; nothing of what has no finite point."""
    if curves.loss:
        smoothed = charts.smooth(curves.loss, len(curves.loss) // 30)
        summary = f"Training loss from {smoothed[0][1]:.3g} to {smoothed[-1][1]:.3g}" if smoothed else "Training loss"
        lines = [charts.Line(curves.loss, "raw"), charts.Line(smoothed, "main")]
        if svg := charts.line_chart(lines, "step", summary, from_zero=False):
            yield Drawn("Loss", "each step, and smoothed", svg)
    if curves.score:
        title, note = f"{HEADLINE.label} during training", "on a sample of the validation pairs"
        if curves.of_several:
            note = f"mean over sources, {note}"
        summary = f"{title}, last {curves.score[-1][1]:.1f}"
        if curves.chance:
            note, summary = f"{note}; dashed: chance", f"{summary}, chance {curves.chance[-1][1]:.1f}"
        score = charts.Line(curves.score, "main", dots=len(curves.score) <= MAX_DOTS)
        if svg := charts.line_chart([charts.Line(curves.chance, "chance"), score], "step", summary, from_zero=True):
            yield Drawn(title, note, svg)


def is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[name])) for row in rows if is_number(row.get(name))]
