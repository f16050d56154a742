"""The benchmark of the loader end to end with tiny settings."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks import bench_loader
from benchmarks.common import RESULTS
from tests.support.paths import ROOT


def test_it_runs_and_exact_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    said = capsys.readouterr().out
    assert re.search(r"^drawn: exact: .* times Pillow, goal 1\.8: (met|missed)$", said, re.MULTILINE)
    assert re.search(r"^drawn: fast: .* times Pillow, goal 2\.5: (met|missed)$", said, re.MULTILINE)


def test_features_are_compared_with_those_of_the_same_and_of_another_crop() -> None:
    def crop(data: bytes, seed: int) -> torch.Tensor:
        return torch.tensor([seed // bench_loader.ANOTHER_CROP, 1 - seed // bench_loader.ANOTHER_CROP]) * len(data)

    def brighter(data: bytes, seed: int) -> torch.Tensor:
        return 2 * crop(data, seed)

    same = bench_loader.cosines(crop, brighter, [b"one", b"three"], lambda pixels: pixels.float())
    assert same == {"cosine": 1, "lowest_cosine": 1}
    assert bench_loader.cosines(crop, crop, [b"one"], lambda pixels: pixels.float())["cosine"] == 0


def test_goals_are_met_or_missed() -> None:
    pictures = {"drawn: exact": {"ratio": 1.8}, "drawn: fast": {"ratio": 2.49}, "photographs: exact": {}}
    captions = {"tokens and masking": {"microseconds": 50.1}}
    assert bench_loader.goals({"pictures": pictures, "captions": captions}) == [
        "drawn: exact: 1.80 times Pillow, goal 1.8: met",
        "drawn: fast: 2.49 times Pillow, goal 2.5: missed",
        "a caption: 50 us, goal 50: missed",
    ]


def test_the_page_shows_what_the_file_says() -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    content = json.loads((RESULTS / "loader.json").read_text())
    found = bench_loader.rows(content)
    assert len(found) == 4
    assert [row for row in found if row not in page] == []
    assert [line for line in bench_loader.goals(content) if line not in page] == []
