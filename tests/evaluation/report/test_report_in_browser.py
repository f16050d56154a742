"""The report in a real browser: in a window of any width its words are there whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.report.test_report import content
from tests.support.browser import CHROMIUM, keep, open_browser
from tests.support.fake_world import World
from zerovl.evaluation.report.page import render

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs one"),
]
_CUT_OFF = """() => [...document.querySelectorAll('main *')].filter(each => each.children.length === 0
  && each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX === 'hidden')
  .map(each => each.textContent)"""
# The lines that the words beside the number take, each as high as its letters ask for.
_HEIGHT_OF_A_LINE = """() => { const words = document.querySelector('.hero h1 small'), range = document.createRange();
  range.selectNodeContents(words);
  const tops = [...new Set([...range.getClientRects()].map(line => Math.round(line.top)))];
  return tops.length < 2 ? 0 : (tops[1] - tops[0]) / parseFloat(getComputedStyle(words).fontSize); }"""


def test_words_are_whole_in_narrow_windows_too(world: World, tmp_path: Path) -> None:
    page_file = tmp_path / "report.html"
    page_file.write_text(render(content(world, count=28)))
    with open_browser() as page:
        page.goto(page_file.as_uri())
        for width in (1280, 700, 390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(_CUT_OFF) == [], f"{width} pixels"
            assert page.evaluate(_HEIGHT_OF_A_LINE) < 2, f"{width} pixels"
        keep(page, "report-narrow")
