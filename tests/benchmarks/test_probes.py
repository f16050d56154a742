"""The comparison of linear probes end to end, on drawn pictures and a tiny tower."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import probes
from tests.support.labelled_sets import COLOURS, write_folder
from zerovl.evaluation.classification import paper_probe


def test_it_scores_each_probe_and_its_distance_to_the_fast_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_probe, "EPOCHS", 3)
    folder, out = write_folder(tmp_path / "drawn", pictures=6, colours=COLOURS[:3]), tmp_path / "probes.json"
    given = ["--sets", f"drawn={folder}", "--tower", "test_efficientnet", "--pixels", "32", "--out", str(out)]
    assert probes.main(given) == 0
    found = json.loads(out.read_text())
    assert found["settings"]["pretrained"] is False
    records = found["drawn"]
    assert list(records) == ["fast", "paper", "paper augmented"]
    for record in records.values():
        value, low, high = record["top1"]
        assert 0 <= low <= value <= high <= 100
        assert record["pictures"] == 18
    assert records["fast"]["over_fast"] == [0.0, 0.0, 0.0]
    above = records["paper"]["top1"][0] - records["fast"]["top1"][0]
    assert records["paper"]["over_fast"][0] == pytest.approx(above, abs=0.02)
