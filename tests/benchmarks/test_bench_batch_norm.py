"""The comparison of norms makes each run once, and its table compares by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import batch_norm, demo_scores
from tests.support.imitated_comparison import compare, keep_results_in, runs_made_again
from zerovl import params_file
from zerovl.yaml_file import read_yaml


def _imitate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Scores without training: 100 and the seed, 10 less for BatchNorm of micro-batches; returns the changes made."""
    made: list[list[str]] = []

    def score(_work: Path, _shared: Path, _towers: Path, seed: int, changes: Sequence[str]) -> float:
        made.append(list(changes))
        worse = changes[0].endswith(("=batchnorm", "=train"))
        return 100.0 + seed - 10 * worse * (seed + 1)

    monkeypatch.setattr(batch_norm, "_demo", score)
    monkeypatch.setattr(batch_norm, "_photographs", score)
    monkeypatch.setattr(demo_scores, "draw", lambda _work: "digest")
    keep_results_in(tmp_path, batch_norm, monkeypatch)
    return made


def test_norms_are_compared_by_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = _imitate(monkeypatch, tmp_path)
    rows = compare(batch_norm, tmp_path)
    assert len(made) == len({tuple(changes) for changes in made}) * len(batch_norm.SEEDS)
    assert len(rows) == 8
    assert "| random weights | GroupNorm | debiased | 3 | 101.0 |  |" in rows
    assert "| random weights | BatchNorm | debiased | 3 | 81.0 | -20.0 (SD 10.0) |" in rows
    assert "| published weights | BatchNorm | shuffled | 3 | 81.0 | -20.0 (SD 10.0) |" in rows


def test_what_is_there_is_not_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = _imitate(monkeypatch, tmp_path)
    assert runs_made_again(batch_norm, tmp_path, made) == []


@pytest.mark.parametrize(("beginning", "recipe"), [("random weights", "demo"), ("published weights", "photos")])
def test_every_change_is_a_setting_of_its_recipe(beginning: str, recipe: str) -> None:
    values: dict[str, Any] = {} if recipe == "demo" else read_yaml(batch_norm.RECIPE)
    for change in batch_norm.FROM[beginning].values():
        settings = params_file.from_recipe(values, [change], recipe)
        tower = settings.model.image_tower
        assert change.rpartition("=")[2] in (tower.batch_norm, tower.options.get("norm_layer"))
