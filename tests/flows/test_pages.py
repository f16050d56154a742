"""What the UI shows of a run, as text."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.artifacts import curves, render_summary, validation
from flows.fenced import fenced
from flows.reproduce import Comparison, render
from zerovl.files import write_json
from zerovl.registry.records import Version
from zerovl.registry.release_files import WEIGHTS, FileInfo
from zerovl.workspace import Workspace

BLOCK = {"rsum": 93.0, "rsum_low": 84.3, "rsum_high": 103.2, "untrained_rsum": 6.0}
METRICS: dict[str, Any] = {
    "mean": BLOCK,
    "overall": {**BLOCK, "rsum": 50.0},
    "sources": {"web": {**BLOCK, "rsum": 90.0}, "new": {**BLOCK, "rsum": 96.0}},
    "unseen": ["new"],
    "evaluation_digest": "a",
}
RELEASE: dict[str, Any] = {
    "name": "zerovl",
    "version": 4,
    "store": "s3://models",
    "alias": "production",
    "promoted": True,
    "verdict": {
        "passed": True,
        "reasons": [{"rule": "max_drop mean", "value": -3.0, "bound": 5.0, "passed": True, "note": "over 3 sources"}],
    },
}


def released(number: int, metrics: dict[str, Any]) -> Version:
    files = {WEIGHTS: FileInfo("a" * 64, 1)}
    return Version("zerovl", number, "0" * 64, "2026-01-01T00:00:00Z", "test", files, metrics, {}, None)


def test_the_difference_to_production_is_that_of_the_same_evaluation() -> None:
    before = {**METRICS, "mean": {**BLOCK, "rsum": 90.5}, "unseen": []}
    text = render_summary(METRICS, RELEASE, released(3, before))
    assert "| mean | 93.0 | 84.3 to 103.2 | 6.0 | +2.5 |" in text
    assert "| pool | 50.0 | 84.3 to 103.2 | 6.0 | +0.0 |" in text
    assert "| new (unseen) | 96.0 | 84.3 to 103.2 | 6.0 | +0.0 |" in text
    assert "| web | 90.0 | 84.3 to 103.2 | 6.0 | +0.0 |" in text
    text = render_summary(METRICS, RELEASE, released(3, {**before, "evaluation_digest": "b"}))
    assert "| mean | 93.0 | 84.3 to 103.2 | 6.0 | - |" in text
    assert "was evaluated on other data" in text


def test_a_mean_is_never_held_against_the_pool_of_an_older_release() -> None:
    before = {name: value for name, value in METRICS.items() if name not in ("mean", "unseen")}
    text = render_summary(METRICS, RELEASE, released(3, before))
    assert "| mean | 93.0 | 84.3 to 103.2 | 6.0 | - |" in text
    assert "| pool | 50.0 | 84.3 to 103.2 | 6.0 | +0.0 |" in text


def test_what_became_of_the_model() -> None:
    text = render_summary(METRICS, RELEASE, None)
    assert "`zerovl@4` in `s3://models`: promoted to `production`." in text
    assert "| max_drop mean | passed | gain of 3 | 5 |\n" in text
    assert "\n- `max_drop mean`: over 3 sources\n" in text
    unasked = {"rule": "max_drop", "value": None, "bound": 5.0, "passed": True, "note": "no holder yet"}
    first = {**RELEASE, "verdict": {"passed": True, "reasons": [unasked]}}
    text_of_first = render_summary(METRICS, first, None)
    assert "| max_drop | nothing to compare | - | 5 |\n" in text_of_first
    assert "\n- `max_drop`: no holder yet\n" in text_of_first
    assert 'zerovl.load("s3://models/zerovl@production")' in text
    reasons = [{**RELEASE["verdict"]["reasons"][0], "passed": False}]
    refused = {**RELEASE, "promoted": False, "verdict": {"passed": False, "reasons": reasons}}
    text = render_summary(METRICS, refused, None)
    assert "the gate refused it, `production` stays where it is" in text
    assert "**FAILED**" in text
    assert 'zerovl.load("s3://models/zerovl@4")' in text
    back = {**RELEASE, "promoted": False, "moved_away": "zerovl@production stays with zerovl@3"}
    assert "the gate passed it, but zerovl@production stays with zerovl@3." in render_summary(METRICS, back, None)
    assert "registered, no alias was asked for" in render_summary(METRICS, {**refused, "alias": ""}, None)
    assert "Not registered" in render_summary(METRICS, None, None)


def test_a_model_that_is_in_production_is_not_promoted_again() -> None:
    text = render_summary(METRICS, RELEASE, released(4, METRICS))
    assert "`zerovl@4` in `s3://models`: `production` had it before this run, and keeps it." in text
    assert "promoted" not in text
    assert "promoted to `production`" in render_summary(METRICS, RELEASE, released(3, METRICS))


def test_a_rule_with_nothing_to_check_is_not_shown_as_passed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    states = (("drift", "soft", None, True), ("size", "hard", 3.0, True), ("blur", "soft", 1.0, False))
    rules = [
        {"name": name, "level": level, "value": value, "bound": "<= 2", "passed": passed}
        for name, level, value, passed in states
    ]
    write_json(workspace.validation_report / "verdict.json", {"rules": rules})
    (page,) = validation(workspace)
    shown = [(row["rule"], row["state"], row["value"]) for row in json.loads(page.data)]
    assert shown == [("blur", "warning", "1"), ("size", "passed", "3"), ("drift", "nothing to check", "-")]


def test_one_source_is_one_row() -> None:
    alone = {**METRICS, "overall": BLOCK, "sources": {"web": BLOCK}, "unseen": []}
    before = {**alone, "mean": {**BLOCK, "rsum": 90.5}, "sources": {"web": {"rsum": 90.5}}}
    text = render_summary(alone, None, released(3, before))
    assert "| web | 93.0 | 84.3 to 103.2 | 6.0 | +2.5 |" in text
    assert text.count("| 93.0 |") == 1


def test_a_release_made_again_is_titled_as_everywhere() -> None:
    def page(metrics: dict[str, Any]) -> str:
        return render(released(4, metrics), Comparison(True, 0.0, (93.0, 93.0), tolerance=1.0))

    assert "| RSUM, mean over 2 sources | 93.00 | 93.00 |" in page(METRICS)
    assert "| RSUM | 93.00 | 93.00 |" in page({**METRICS, "sources": {"web": BLOCK}})


def test_tables_are_as_wide_as_the_ui_shows() -> None:
    """It wraps no cell: of a wider table the end is not seen, nor that there is one."""
    why = "hardly more than chance, which is 281.28: the lower end of the interval must lie above the bound"
    reasons = [{"rule": "min_rsum", "value": 248.0, "bound": 290.84, "passed": False, "note": why}]
    refused = {**RELEASE, "promoted": False, "verdict": {"passed": False, "reasons": reasons}}
    of = replace(released(4, METRICS), provenance={"data_manifest": "a" * 64})
    pages = [
        render_summary(METRICS, refused, None),
        render(of, Comparison(True, None, (93.0, 93.0), tolerance=1.0)),
    ]
    assert why in pages[0]
    rows = [row for page in pages for row in page.splitlines() if row.startswith("|")]
    assert len(rows) > 10
    assert [row for row in rows if len(row) > 90] == []


def test_what_a_command_printed_is_whole_line_for_line() -> None:
    by = "By:         Somebody of the Team <somebody.of.the.team@a-rather-long-name-of-a-machine.example.org> for all"
    said = f"move 2\n\n{by}\n    better on_our *own* queries"
    lines = fenced(said).splitlines()
    assert (lines[0], lines[-1]) == ("```", "```")  # no markdown: names keep their underscores
    assert lines[1:3] == ["move 2", ""]
    assert lines[-2] == "    better on_our *own* queries"
    assert [line for line in lines if len(line) > 84] == []
    assert " ".join(" ".join(lines[3:-2]).split()) == " ".join(by.split())


def test_curves_are_pictures_of_their_own() -> None:
    rows = [
        {"step": step, "loss": 3.0 - step / 10}
        | ({"valid_rsum": 5.0 * step, "valid_chance_rsum": 4.0} if step % 5 == 0 else {})
        for step in range(20)
    ]
    pictures = dict(curves(rows))
    assert list(pictures) == [
        "Loss, each step, and smoothed",
        "RSUM during training, mean over sources, on a sample of the validation pairs; dashed: chance",
    ]
    alone = [row | ({"valid_pool_rsum": row["valid_rsum"]} if "valid_rsum" in row else {}) for row in rows]
    assert list(dict(curves(alone)))[1:] == [
        "RSUM during training, on a sample of the validation pairs; dashed: chance"
    ]
    for picture in pictures.values():
        root = ElementTree.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(root.findall("{http://www.w3.org/2000/svg}path")) >= 1
    assert dict(curves([])) == {}
