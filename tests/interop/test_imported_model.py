"""From an original checkpoint to its golden scores through the commands a user types."""

import json
from pathlib import Path

import numpy as np
import pytest

from zerovl import cli


def test_import_embed_score(parity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(tmp_path / "model"), str(tmp_path / "out.npz")
    towers = ["--image-tower", "test_vit", "--text-tower", str(parity / "bert")]
    assert cli.main(["import-checkpoint", str(parity / "zerovl_tiny.pth"), *towers, "--out", model]) == 0
    pairs = ["--pairs", str(parity / "pairs.csv"), "--images", str(parity / "images")]
    assert cli.main(["embed", model, *pairs, "--out", out]) == 0
    found, golden = np.load(out), np.load(parity / "embeddings.npz")
    for name in ("image_embeddings", "text_embeddings"):
        assert found[name].shape == golden[name].shape
        assert np.abs(found[name] - golden[name]).max() < 1e-5
    for name in ("image_id", "caption_id"):
        np.testing.assert_array_equal(found[name], golden[name])
    capsys.readouterr()
    assert cli.main(["score", out]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["rsum"] == pytest.approx(json.loads((parity / "metrics.json").read_text())["zs_RSUM"], rel=1e-6)

    assert cli.main(["search", model, "a farm", "--images", str(parity / "images"), "--top", "3"]) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if ".jpg" in line]) == 3
