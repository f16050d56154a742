"""What a picture is, its bytes say and not its name: `.jfif` and `.avif` are read, and so is a PNG called `.jpg`."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import raw_sources

# Ending, format of the content.
NAMES = [
    *[("jfif", "JPEG"), ("JFIF", "JPEG"), ("avif", "AVIF"), ("webp", "WEBP"), ("gif", "GIF"), ("bmp", "BMP")],
    *[("tif", "TIFF"), ("jpg", "PNG"), ("png", "JPEG"), ("jpeg", "AVIF"), ("avif", "WEBP")],
]
ANY_NAMES = [*NAMES, ("data", "GIF"), ("txt", "PNG"), ("", "JPEG")]


def named(number: int, ending: str) -> str:
    return f"{number:03}.{ending}" if ending else f"{number:03}"


def test_the_content_says_what_a_picture_is_in_tars_and_beside_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar needs an ending to tell a picture from what lies beside it; a table says itself what its pictures are."""
    monkeypatch.setenv("ZEROVL_WORKERS", "1")
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for number, (ending, kind) in enumerate(NAMES):
        data = raw_sources.encoded(raw_sources.picture(number), kind)
        members += [(named(number, ending), data), (named(number, "txt"), b"a caption")]
    raw_sources.write_tar(tmp_path / "raw/tars/0.tar", members)
    raw_sources.write_zerovl(tmp_path / "raw/table", "train", 0)
    for number, (ending, kind) in enumerate(ANY_NAMES):
        place = tmp_path / "raw/table/train" / named(number, ending)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(raw_sources.encoded(raw_sources.picture(number), kind))
    rows = [(named(number, ending), number, "a caption", number) for number, (ending, _) in enumerate(ANY_NAMES)]
    raw_sources.write_csv(tmp_path / "raw/table/train_anno.csv", rows)

    manifest = raw_sources.run_prepare(tmp_path, shard_samples=100)
    for source, names in (("tars", NAMES), ("table", ANY_NAMES)):
        found = raw_sources.rows(manifest, source)
        assert [row["error"] for row in found] == [None] * len(names)
        assert [(row["recoded"] or "JPEG").split()[0] for row in found] == [kind for _, kind in names]
        with tarfile.open(tmp_path / "data/shards" / manifest.splits[source, "train"].shards[0].path) as tar:
            for number, row in enumerate(found):
                stored = tar.extractfile(f"{row['key']}.jpg")
                assert stored is not None
                with Image.open(io.BytesIO(stored.read())) as image:
                    assert image.format == "JPEG"
                    apart = np.asarray(image, int) - np.asarray(raw_sources.picture(number), int)
                    assert np.abs(apart).mean() < 8
