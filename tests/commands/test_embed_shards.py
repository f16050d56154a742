"""`zerovl embed` of the project's own `data/shards`: what the raw pictures give, with their places in the tars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from tests.support.fake_world import FakeEncoder
from tests.support.real_world import PAIRS, make_project
from zerovl import cli
from zerovl.images import decode_rgb


def test_each_picture_of_the_shards_is_embedded_once(encoder: FakeEncoder, tmp_path: Path) -> None:
    workspace = make_project(tmp_path / "project")
    raw = {path.read_bytes() for path in (workspace.root / "raw").rglob("*.jpg")}
    shards, out = workspace.root / "data" / "shards", tmp_path / "embeddings.parquet"
    assert cli.main(["embed", "model", "--images", str(shards), "--out", str(out)]) == 0
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == len({row["key"] for row in rows}) == len(raw) == 4 * PAIRS
    stored = []
    for row in rows:
        tar = (shards / row["path"].decode()).read_bytes()
        stored.append(tar[row["offset"] : row["offset"] + row["size"]])
    assert set(stored) == raw
    pixels = torch.stack([encoder.transform(decode_rgb(data)) for data in stored])
    found = np.array([row["image_embedding"] for row in rows], np.float32)
    np.testing.assert_allclose(found, encoder.encode_pixels(pixels).numpy(), atol=1e-6)
    assert not list(tmp_path.glob("*.broken.csv"))
