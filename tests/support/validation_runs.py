"""The stage `validate` over small manifests; where a test is not about Great Expectations, without it."""

import json
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.validation_manifests import Rows, write_manifest
from zerovl.data.manifest import Manifest
from zerovl.data.validation import expectations
from zerovl.data.validation.rules import Rule
from zerovl.data.validation.statistics import Scan
from zerovl.errors import ZeroVLError
from zerovl.params import Params, ValidateParams
from zerovl.stages import validate as stage
from zerovl.workspace import Workspace


def settings(**values: Any) -> Params:
    """Parameters with which all rows of a small manifest are in the sample."""
    return Params(validate=ValidateParams(**{"sample_rows": 1000, **values}))


def validate(root: Path, rows: Rows | None = None, **values: Any) -> dict[str, Any]:
    """The verdict, whether passed or not."""
    if rows is not None:
        write_manifest(Workspace(root).manifest, rows)
    try:
        stage.run(settings(**values), Workspace(root))
    except ZeroVLError:
        verdict: dict[str, Any] = json.loads(Workspace(root).validation_verdict.read_text())
        assert not verdict["passed"]
        return verdict
    verdict = json.loads(Workspace(root).validation_verdict.read_text())
    assert verdict["passed"]
    return verdict


def broken(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rule name -> rule, of those that do not hold."""
    return {rule["name"]: rule for rule in verdict["rules"] if not rule["passed"]}


def row(rows: Rows, number: int = 3, split: tuple[str, str] = ("beta", "train")) -> dict[str, Any]:
    """One row, to be changed; by default the fourth of beta/train."""
    return rows[split][number]


def is_inside(rule: Rule) -> bool:
    """Whether a rule's value is within its bound."""
    low = rule.minimum is None or (rule.value or 0) >= rule.minimum
    high = rule.maximum is None or (rule.value or 0) <= rule.maximum
    return rule.value is None or (low and high)


def judge_by_bounds(
    report: Path, manifest: Manifest, counted: Scan, rules: list[Rule], settings: ValidateParams
) -> tuple[list[dict[str, Any]], str]:
    """What `check_expectations` does, by the bounds alone: its tables are written, its rules hold or do not."""
    expectations._write_tables(report / "tables", manifest, counted, rules)
    return [_outcome(rule) for rule in rules], "none"


def _outcome(rule: Rule) -> dict[str, Any]:
    """Of a rule, as of its expectation in the table of rules."""
    holds = is_inside(rule)
    return {
        "table": "rules",
        "rule": rule.name,
        "expectation": "expect_column_values_to_be_between",
        "column": rule.name,
        "expected": rule.bound,
        "success": holds,
        "checked": int(rule.value is not None),
        "unexpected": int(not holds),
        "examples": [] if holds else [str(rule.value)],
    }


def refuse_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate opens no connection: whoever tries fails the test."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"validate opened a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def by_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate without Great Expectations, which takes seconds; `test_expectations` shows that it agrees."""
    monkeypatch.setattr(stage, "check_expectations", judge_by_bounds)


@pytest.fixture
def no_data_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations without its pages."""
    from great_expectations.checkpoint.actions import UpdateDataDocsAction

    monkeypatch.setattr(UpdateDataDocsAction, "run", lambda *arguments, **named: {})


class _Loads(HTMLParser):
    """Everything that a browser would fetch, and the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]


def loads_nothing(page: str) -> None:
    """Fails where a validation's page leads, or fetches from, anywhere but to the files beside it."""
    parsed = _Loads()
    parsed.feed(page)
    assert set(parsed.addresses) == {"data:,", "verdict.json", "broken.csv", "data_docs/index.html"}
    assert not {"script", "img", "iframe", "object"} & set(parsed.tags)
    assert "url(" not in page
    assert "@import" not in page
