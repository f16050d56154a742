"""The benchmark of the loader end to end with tiny settings."""

import json
from pathlib import Path

import pytest

from benchmarks import bench_loader


def test_it_runs_and_exact_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_loader, "SIDE", 96)
    monkeypatch.setattr(bench_loader, "PHOTOGRAPHS", tmp_path)
    out = tmp_path / "loader.json"
    assert bench_loader.main(["--smoke", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    pictures = found["pictures"]
    assert pictures["drawn: Pillow"]["largest_difference"] == 0
    assert pictures["drawn: Pillow"]["ratio"] == 1
    assert pictures["drawn: exact"]["largest_difference"] <= 1
    assert pictures["drawn: fast"]["mean_difference"] > 0
    assert "Flickr8k" in pictures["photographs: exact"]["not_measured"]
    assert found["captions"]["tokens and masking"]["microseconds"] > 0
