"""Draw line charts as inline SVG: no script, no request, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

from zerovl.text_format import short

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 34
MAX_POINTS = 500  # a line; longer ones are averaged, so that the page stays small

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A curve and how it is drawn."""

    points: Points
    style: str  # class in report.css
    dots: bool = False


def line_chart(lines: Sequence[Line], x_label: str, summary: str, *, from_zero: bool) -> str:
    """Draw (x, y) lines as an SVG; `summary` is what a screen reader says. Points that are not finite are left out.

    The x axis begins at 0, or below where a line does, and ends with the last point, which has a tick of its own.
    """
    kept = [Line(points, line.style, line.dots) for line in lines if (points := _finite(line.points))]
    if not kept:
        return ""
    xs = [x for line in kept for x, _ in line.points]
    drawn = [Line(_thin(line.points), line.style, line.dots) for line in kept]
    ys = [y for line in drawn for _, y in line.points]
    x_start = min(0.0, *xs)
    x_ticks = _ticks_to_the_end(x_start, max(xs))
    y_ticks = ticks(0.0 if from_zero else min(ys), max(ys), 5)
    x_range, y_range = (x_start, max(*xs, x_start + 1e-9)), (y_ticks[0], y_ticks[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(summary)}">']
    for value in y_ticks:
        y = at(x_range[0], value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in x_ticks:
        x = at(value, y_range[0])[0]
        anchor = "end" if x > WIDTH - RIGHT - 14 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{short(value)}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for line in drawn:
        places = [at(x, y) for x, y in line.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="{line.style}" d="{path}"/>')
        if line.dots:
            parts += [f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places]
    return "".join([*parts, "</svg>"])


def smooth(points: Points, reach: int) -> list[tuple[float, float]]:
    """Take the mean of each point and `reach` neighbours on both sides, fewer at the ends: it does not lag."""
    kept = _finite(points)
    sums = [0.0, *accumulate(y for _, y in kept)]
    smoothed = []
    for place, (x, _) in enumerate(kept):
        start, end = max(0, place - reach), min(len(kept), place + reach + 1)
        smoothed.append((x, (sums[end] - sums[start]) / (end - start)))
    return smoothed


def ticks(low: float, high: float, about: int) -> list[float]:
    """Choose round numbers that enclose [low, high]."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _ticks_to_the_end(low: float, high: float) -> list[float]:
    """Choose round numbers in [low, high], and `high` in place of those too near to it to be read."""
    room = 0.12 * (high - low)
    return [value for value in ticks(low, high, 5) if low <= value < high - room] + [high]


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _thin(points: Points) -> list[tuple[float, float]]:
    """Take means of neighbours, at most MAX_POINTS of them."""
    size = -(-len(points) // MAX_POINTS)
    if size <= 1:
        return list(points)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in block) / len(block), sum(y for _, y in block) / len(block)) for block in blocks]
