"""The comparison of equal pairs tunes both ways alike, makes each run once, and compares by seed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import equal_pairs
from benchmarks.ablation import RECIPE, TUNING_SEED
from tests.support.imitated_comparison import compare, keep_results_in, runs_made_again
from zerovl import params_file
from zerovl.yaml_file import read_yaml


def _imitate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Scores without training: 100 and the seed, 4 more for positives, best at 0.002; returns the runs made."""
    made: list[dict[str, Any]] = []

    def measured(_fold: object, head: dict[str, Any]) -> dict[str, Any]:
        made.append(head)
        more = 4 if head["equal_pairs"] == "positives" else 0
        return {"steps": 270, "rsum": 100.0 + head["seed"] + more - 1000 * abs(head["lr"] - 0.002)}

    monkeypatch.setattr(equal_pairs, "_measured", measured)
    monkeypatch.setattr(equal_pairs, "prepare", lambda *_: SimpleNamespace())
    keep_results_in(tmp_path, equal_pairs, monkeypatch)
    return made


def test_both_are_tuned_alike_and_compared_by_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = _imitate(monkeypatch, tmp_path)
    rows = compare(equal_pairs, tmp_path)
    variants = len(equal_pairs.KINDS) * len(equal_pairs.EQUAL_PAIRS)
    assert len(made) == variants * (len(equal_pairs.RATES) + len(equal_pairs.SEEDS))
    assert {run["lr"] for run in made if run["seed"] != TUNING_SEED} == {0.002}
    assert rows[:2] == [
        "| softmax, 128 pairs | negatives | 0.002 | 270 | 6 | 102.5 |  |",
        "| softmax, 128 pairs | positives | 0.002 | 270 | 6 | 106.5 | +4.0 ± 0.0 |",
    ]


def test_what_is_there_is_not_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = _imitate(monkeypatch, tmp_path)
    assert runs_made_again(equal_pairs, tmp_path, made) == []


def test_every_change_is_a_setting_of_the_recipe() -> None:
    for kind, changes in equal_pairs.KINDS.items():
        for both in equal_pairs.EQUAL_PAIRS:
            settings = params_file.from_recipe(
                read_yaml(RECIPE), [*equal_pairs._BASE, *changes, f"train.equal_pairs={both}"], "photos"
            )
            assert settings.train.equal_pairs == both
            assert kind.startswith(f"{settings.train.loss}, {settings.train.batch_size} pairs")
