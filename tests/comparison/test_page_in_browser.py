"""The page of a comparison in a real browser: long names and narrow windows leave the numbers in sight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.support.browser import CHROMIUM, keep, open_browser
from tests.support.paths import ROOT
from zerovl.comparison.differences import compare
from zerovl.comparison.page import Content, render, short_labels
from zerovl.comparison.parameters import Parameter
from zerovl.comparison.shown_queries import ShownQueries
from zerovl.comparison.subject import Subject, in_order
from zerovl.evaluation.query_ranks import read_queries
from zerovl.files import read_json

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs one"),
]
OLD = ROOT / "tests" / "assets" / "release_before_items"
LONG = "/data/groups/vision/releases/an-old-release-with-a-rather-long-name-of-2026"
# How far right, in the tables that compare, the first difference begins.
_FIRST_DIFFERENCE = """() => Math.max(...[...document.querySelectorAll('.compared')].map(box => {
  const cells = box.querySelectorAll('thead th'), place = cells.length > 4 ? 4 : cells.length - 1;
  return cells[place].getBoundingClientRect().left - box.getBoundingClientRect().left;
}))"""


def test_long_names_hide_no_numbers(tmp_path: Path) -> None:
    metrics, queries = read_json(OLD / "metrics.json"), in_order(read_queries(OLD / "queries.parquet"))
    first = Subject("zerovl@1", "release zerovl@1", metrics, queries)
    subjects = [first, replace(first, label=LONG), replace(first, label="zerovl@3")]
    scores = compare(subjects, 20, 0)
    parameters = [Parameter("train.lr", ("0.001", "0.002", "0.003"))]
    page_file = tmp_path / "page.html"
    page_file.write_text(render(Content(subjects, scores, parameters, ShownQueries((), "", ()), 20)))
    with open_browser() as page:
        page.goto(page_file.as_uri())
        assert _overflow(page, 1280) == 0
        assert page.evaluate(_FIRST_DIFFERENCE) < 900
        assert page.locator(".delta small").all_inner_texts()[:2] == [f"…{LONG[-25:]}", "zerovl@3"]
        assert page.locator(".card h2").all_inner_texts() == ["zerovl@1", LONG, "zerovl@3"]
        keep(page, "compare")
        assert _overflow(page, 360) == 0
        assert page.evaluate("document.querySelector('.compared thead th').getBoundingClientRect().width") < 180


def test_names_that_end_alike_stay_whole() -> None:
    names = ["zerovl@1", f"/first{LONG}", f"/second{LONG}"]
    assert short_labels(names) == names
    assert short_labels(names[:2]) == ["zerovl@1", f"…{LONG[-25:]}"]


def _overflow(page: Page, width: int) -> int:
    """Return how many pixels the page is wider than a window."""
    page.set_viewport_size({"width": width, "height": 800})
    return int(page.evaluate("document.documentElement.scrollWidth")) - width
