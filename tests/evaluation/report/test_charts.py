"""The charts of the pages: ticks, curves that are odd, smoothing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from zerovl.evaluation.report import charts


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 4.9), (-5, 1e6), (0.001, 0.0012), (7, 7), (0, 0)])
def test_ticks_enclose_and_are_few(low: float, high: float) -> None:
    values = charts.ticks(low, high, 5)
    assert values[0] <= low + 1e-9
    assert values[-1] >= high - 1e-9
    assert 2 <= len(values) <= 8


def test_chart_of_odd_curves() -> None:
    nan = float("nan")
    assert charts.line_chart([charts.Line([(0, nan)], "main")], "step", "s", from_zero=False) == ""
    for points in ([(0, 1.0)], [(0, 1.0), (1, nan), (2, 1.0)], [(step, step % 7) for step in range(20_000)]):
        svg = charts.line_chart([charts.Line(points, "main", dots=False)], "step", "a <b>", from_zero=True)
        assert "nan" not in svg
        assert "a &lt;b&gt;" in svg
        assert len(svg) < 20_000


@pytest.mark.parametrize(
    ("first", "last", "labels"),
    [(0, 225, ["0", "50", "100", "150", "225"]), (22, 220, ["0", "50", "100", "150", "220"]), (0, 0, ["0"]),
     (0, 19_999, ["0", "5k", "10k", "15k", "20k"])],
)  # fmt: skip
def test_the_axis_of_steps_begins_at_0_and_names_its_end(first: int, last: int, labels: list[str]) -> None:
    points = [(float(step), 1.0 + step % 7) for step in range(first, last + 1)]
    svg = charts.line_chart([charts.Line(points, "main")], "step", "s", from_zero=True)
    texts = re.findall(r'<text x="([\d.]+)" y="232"[^>]*>([^<]*)<', svg)
    assert [label for _, label in texts] == labels
    assert float(texts[0][0]) == charts.LEFT
    if last:
        assert float(texts[-1][0]) == charts.WIDTH - charts.RIGHT


def test_smoothing_keeps_a_line_and_takes_the_mean_of_neighbours() -> None:
    line = [(float(step), 3.0 - 0.1 * step) for step in range(50)]
    assert np.allclose(charts.smooth(line, 10)[10:40], line[10:40])
    assert charts.smooth([(0, 9.0), (1, 0.0), (2, 3.0)], 1) == [(0, 4.5), (1, 4.0), (2, 1.5)]
