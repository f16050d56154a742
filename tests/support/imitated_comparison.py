"""A comparison of `benchmarks` whose runs a test imitates: its results lie in the test's folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def keep_results_in(folder: Path, comparison: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "FILE", folder / "runs.json")
    monkeypatch.setattr(comparison, "TABLE", folder / "table.md")


def compare(comparison: ModuleType, folder: Path) -> list[str]:
    """Run the comparison to its end; returns the rows of its table."""
    assert comparison.main(["--work", str(folder)]) == 0
    rows: list[str] = comparison.TABLE.read_text().splitlines()[2:]
    return rows


def runs_made_again(comparison: ModuleType, folder: Path, made: list[Any]) -> list[Any]:
    """Run it twice; returns what of `made`, to which each imitated run is appended, the second time made."""
    compare(comparison, folder)
    assert made
    made.clear()
    compare(comparison, folder)
    return made
