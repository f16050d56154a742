"""The page loads nothing, and what came from the data cannot act in it."""

import re
from pathlib import Path

import pytest

from tests.support.browser import CHROMIUM, keep, open_browser
from tests.support.validation_manifests import clean_rows, quarantine
from tests.support.validation_runs import loads_nothing, row, validate
from zerovl.data.validation.expectations_section import expectations_section, in_words

BETWEEN = "expect_column_values_to_be_between"
PASSED = {"success": True, "checked": 0, "unexpected": 0, "examples": []}


@pytest.mark.usefixtures("by_bounds")
def test_the_page_loads_nothing_and_escapes_what_came_from_data(tmp_path: Path) -> None:
    rows = clean_rows()
    hostile = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)>'
    for number in range(3):
        quarantine(row(rows, number), f"not a picture: {hostile}")
    row(rows, 5).update(captions=[f"\x07 {hostile}", "two blue dots"], origin=f"{hostile}.jpg")
    validate(tmp_path, rows, max_broken_fraction=0.1)
    page = (tmp_path / "reports/validation/index.html").read_text(encoding="utf-8")
    loads_nothing(page)
    assert "&lt;script src=&quot;https://evil.example" in page
    assert "$" not in re.sub(r"<code>.*?</code>", "", page)  # no placeholder is left


def test_what_great_expectations_found_is_on_the_page() -> None:
    """Escaped, failures first and unfolded; each with column, words, what was seen and its rule."""
    several = {"column": ["source", "image_id"], "expected": "are unique together", "rule": "image_ids_unique"}
    found = {"success": False, "checked": 120, "unexpected": 2, "examples": ["<b>", "x" * 99]}
    length = {"column": "words_min", "expected": in_words(BETWEEN, {"min_value": 4.0, "max_value": None})}
    outcomes = [
        {"table": "rules", "column": "leaked", "expected": "at most 0", "rule": "leaked", **PASSED, "checked": 1},
        {"table": "rules", "column": "drift_rows", "expected": "at most 0.3", "rule": "drift_rows", **PASSED},
        {"table": "shards", **length, "rule": "caption_words_min", **PASSED, "checked": 12},
        {"table": "sample", **several, **found},
    ]
    rules = [{"name": "leaked", "value": 0.0}, {"name": "drift_rows", "value": None}]
    verdict = {"expectations": outcomes, "rules": rules, "great_expectations": "1.2", "sampled_rows": 1200}
    section = expectations_section(verdict)
    assert "3 of 4 were met, as Great Expectations 1.2 found them in a <code>sample</code> of 1,200 rows" in section
    assert "<details open><summary>all 4" in section
    of_several = ["sample", "source", ", ", "image_id", "are unique together", "broken"]
    cells = [re.sub(r"<[^>]*>", "|", line).strip("|") for line in section.splitlines() if line.startswith("<tr><td>")]
    assert [re.split(r"\|+", line) for line in cells] == [
        [*of_several, f"2 of 120 are not: &lt;b&gt;, {'x' * 60}...", "image_ids_unique"],
        ["rules", "leaked", "at most 0", "passed", "0", "leaked"],
        ["rules", "drift_rows", "at most 0.3", "not checked", "no values", "drift_rows"],
        ["shards", "words_min", "at least 4", "passed", "0 of 12 are not", "caption_words_min"],
    ]
    for each in outcomes:
        each["success"] = True
    assert "<details><summary>" in expectations_section(verdict)


@pytest.mark.usefixtures("by_bounds")
def test_what_was_not_checked_does_not_say_passed(tmp_path: Path) -> None:
    validate(tmp_path, clean_rows())
    page = (tmp_path / "reports/validation/index.html").read_text(encoding="utf-8")
    assert re.search(r"<code>drift_rows</code></td><td class='state not-checked'>not checked</td>", page)
    assert re.search(r"<code>keys_unique</code></td><td class='state passed'>passed</td>", page)
    assert "17 of 21 rules hold, 4 had nothing to check, 0 hard rules broken" in page


@pytest.mark.usefixtures("by_bounds")
def test_a_source_without_a_split_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = clean_rows()
    verdict = validate(tmp_path, rows)
    assert "sources_without" not in verdict
    del rows["beta", "valid"]
    verdict = validate(tmp_path, rows)
    assert verdict["sources_without"] == {"valid": ["beta"]}
    page = (tmp_path / "reports/validation/index.html").read_text(encoding="utf-8")
    assert "Without a valid split, so they are never evaluated on: beta</p>" in page
    said = capsys.readouterr()
    assert "without a valid split: beta\n" in said.out
    assert "prepare.draw_valid" not in said.err
    del rows["alpha", "valid"]
    validate(tmp_path, rows)  # what trains for hours comes next, and what needs the split after it
    assert "warning: no source has a valid split: a model can be trained and not evaluated" in capsys.readouterr().err


@pytest.mark.usefixtures("by_bounds")
def test_a_size_that_all_pictures_have_is_said_in_words(tmp_path: Path) -> None:
    validate(tmp_path, clean_rows())
    page = (tmp_path / "reports/validation/index.html").read_text(encoding="utf-8")
    assert "<figcaption>alpha/train: height in pixels</figcaption><p>48, all of them</p></figure>" in page
    assert re.search(r"<figcaption>alpha/train: width in pixels</figcaption><svg", page)


_PAST = """() => [...document.querySelectorAll('.wide')].map(frame =>
    frame.getBoundingClientRect().right - document.querySelector('header').getBoundingClientRect().right)"""
_LINES = """() => [...document.querySelectorAll('.sources td:first-child')].map(cell => {
    const text = document.createRange(); text.selectNodeContents(cell); return text.getClientRects().length })"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs one")
@pytest.mark.usefixtures("by_bounds")
def test_photographs_of_a_usual_name_keep_to_the_column_in_a_browser(tmp_path: Path) -> None:
    rows = clean_rows()
    usual = {("my_photos", split): rows["alpha", split] for split in ("train", "valid")}
    for each in usual.values():
        for number, entry in enumerate(each):
            entry.update(source="my_photos", width=1000 + number, height=1000 + number)
    validate(tmp_path, usual)
    page_file = tmp_path / "reports/validation/index.html"
    with open_browser() as page:
        page.goto(page_file.as_uri())
        keep(page, "validation-usual")
        assert max(page.evaluate(_PAST)) <= 0.5
        assert page.evaluate(_LINES) == [1, 1]


_CUT = """() => [...document.querySelectorAll('.wide')].map(frame => frame.scrollWidth - frame.clientWidth)"""
_BEYOND = "() => document.documentElement.scrollWidth - window.innerWidth"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs one")
@pytest.mark.usefixtures("by_bounds")
def test_a_wide_source_is_not_cut_off_in_a_browser(tmp_path: Path) -> None:
    rows = clean_rows()
    name = "a_source_whose_name_is_as_long_as_people_make_them"
    for each in (wide := {(name, split): rows["alpha", split] for split in ("train", "valid")}).values():
        for number, entry in enumerate(each):
            entry.update(source=name, width=2000 + number, height=1500 + number)
    validate(tmp_path, wide, max_aspect=8.0)
    page_file = tmp_path / "reports/validation/index.html"
    page_file.write_text(page_file.read_text().replace(">30<", ">30,000,000<").replace(">60<", ">60,000,000<"))
    with open_browser() as page:
        for width, is_cut in ((1280, False), (1920, False), (480, True)):
            page.set_viewport_size({"width": width, "height": 860})
            page.goto(page_file.as_uri())
            keep(page, f"validation-{width}")
            assert page.evaluate(_BEYOND) <= 0  # the page itself is never scrolled sideways
            assert any(pixels > 0 for pixels in page.evaluate(_CUT)) == is_cut, width
