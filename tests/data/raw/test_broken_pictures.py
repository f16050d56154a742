"""Pictures that cannot be read are quarantined with their reason; their neighbours stay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support import raw_sources


def broken_picture(root: Path, data: bytes | None, **settings: Any) -> str:
    """The reason for one broken picture between two good ones, which must stay."""
    folder = root / "raw/a"
    raw_sources.write_zerovl(folder, "train", 3)
    if data is None:
        (folder / "train/1.jpg").unlink()
    else:
        (folder / "train/1.jpg").write_bytes(data)
    manifest = raw_sources.run_prepare(root, **settings)
    info = manifest.splits["a", "train"]
    assert (info.pairs, info.broken) == (2, 1)
    [row] = [row for row in raw_sources.rows(manifest, "a") if row["error"]]
    assert row["origin"] == "train/1.jpg (train_anno.csv:4)"
    assert (row["image_id"], row["shard"], row["key"]) == (1, None, None)
    assert row["captions"] == ["picture 1, take 1", "picture 1, take 2"]
    return str(row["error"])


def test_truncated_jpeg(tmp_path: Path) -> None:
    assert "truncated" in broken_picture(tmp_path, raw_sources.jpeg(1)[:-200])


def test_text_named_jpg(tmp_path: Path) -> None:
    assert broken_picture(tmp_path, b"<html>404</html>") == "not a picture"


def test_empty_picture(tmp_path: Path) -> None:
    assert broken_picture(tmp_path, b"") == "empty file"


def test_missing_picture(tmp_path: Path) -> None:
    assert broken_picture(tmp_path, None) == "missing file"


def test_decompression_bomb(tmp_path: Path) -> None:
    bomb = raw_sources.encoded(raw_sources.picture(1, (2000, 1500), mode="L"), "PNG")
    assert broken_picture(tmp_path, bomb, max_pixels=1_000_000) == "2000x1500 pixels, more than 1000000"


def test_picture_of_a_kind_that_pillow_knows_in_part(tmp_path: Path) -> None:
    data = bytearray(raw_sources.encoded(raw_sources.picture(1), "BMP"))
    data[30:34] = (99).to_bytes(4, "little")  # a compression that there is not
    assert broken_picture(tmp_path, bytes(data)) == "OSError: Unsupported BMP compression (99)"


def test_pipe_instead_of_a_picture(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    place = tmp_path / "raw/a/train/1.jpg"
    place.unlink()
    os.mkfifo(place)
    assert set(raw_sources.errors(raw_sources.run_prepare(tmp_path), "a").values()) == {"not a file"}
