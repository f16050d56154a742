"""Pictures as they go into a shard, and how many processes put them there."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import raw_sources
from zerovl.cores import core_count
from zerovl.data.raw import pack
from zerovl.data.raw.pack_sources import worker_count
from zerovl.errors import ZeroVLError


@pytest.mark.parametrize(
    ("image", "kind", "reason"),
    [
        (raw_sources.picture(1, mode="CMYK"), "JPEG", "JPEG CMYK"),
        (raw_sources.picture(1, mode="P"), "PNG", "PNG P"),
        (raw_sources.picture(1, mode="RGBA"), "PNG", "PNG RGBA"),
        (raw_sources.picture(1), "WEBP", "WEBP RGB"),
        (raw_sources.picture(1, mode="P"), "GIF", "GIF P"),
        (Image.fromarray(np.full((30, 40), 0x80FF, np.uint16)), "PNG", "PNG I;16"),
        (raw_sources.picture(1, mode="L"), "JPEG", None),
    ],
)
def test_other_pictures_become_jpeg(image: Image.Image, kind: str, reason: str | None) -> None:
    data = raw_sources.encoded(image, kind)
    stored = pack.store_picture(data, max_side=0, max_pixels=10_000)
    assert stored.recoded == reason
    assert (stored.data == data) == (reason is None)
    with Image.open(io.BytesIO(stored.data)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("JPEG", "L" if reason is None else "RGB", (40, 30))
        if kind == "PNG" and reason == "PNG I;16":
            assert abs(int(np.asarray(opened).mean()) - 0x80) <= 1
        if reason == "PNG RGBA":
            error = np.asarray(opened, int) - np.asarray(raw_sources.picture(1), int)
            assert np.abs(error).mean() < 4


def test_recoded_pictures_have_the_quality_and_chroma_that_are_asked_for(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    picture = raw_sources.picture(1, (320, 240))
    (tmp_path / "raw/a/train/0.jpg").write_bytes(raw_sources.encoded(picture, "PNG"))

    def written(**settings: Any) -> list[bytes]:
        manifest = raw_sources.run_prepare(tmp_path, **settings)
        with tarfile.open(tmp_path / "data/shards" / manifest.splits["a", "train"].shards[0].path) as tar:
            return [tar.extractfile(f"a-{number}.jpg").read() for number in range(2)]  # type: ignore[union-attr]

    recoded, kept = written()
    assert recoded == raw_sources.encoded(picture, quality=95, subsampling=0)
    smaller, as_before = written(jpeg_quality=90, jpeg_chroma="quarter")
    assert smaller == raw_sources.encoded(picture, quality=90, subsampling=2)
    assert len(smaller) < len(recoded)
    assert as_before == kept == raw_sources.jpeg(1)


def test_large_pictures_are_reduced_on_demand() -> None:
    data = raw_sources.jpeg(1, (200, 100))
    assert pack.store_picture(data, 200, 10**6).data == data
    stored = pack.store_picture(data, 50, 10**6)
    assert (stored.width, stored.height, stored.recoded) == (50, 25, "200x100 to 50x25")


def test_difference_hash_bits() -> None:
    rising = Image.fromarray(np.tile(np.arange(0, 180, 2, dtype=np.uint8), (80, 1)))
    assert pack.difference_hash(rising) == 2**64 - 1
    assert pack.difference_hash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
    lower_half = Image.fromarray(np.vstack([np.asarray(rising)[:40, ::-1], np.asarray(rising)[40:]]))
    assert pack.difference_hash(lower_half) == 2**32 - 1


def test_worker_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_WORKERS", "3")
    assert worker_count() == 3
    for wrong in ("0", "many", "-1"):
        monkeypatch.setenv("ZEROVL_WORKERS", wrong)
        with pytest.raises(ZeroVLError, match="ZEROVL_WORKERS"):
            worker_count()
    monkeypatch.delenv("ZEROVL_WORKERS")
    assert worker_count() == core_count()


def test_a_picture_on_its_side_is_stored_upright() -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    data = raw_sources.encoded(raw_sources.picture(1, (200, 100)), quality=95, exif=tag)
    for max_side, size, reason in (
        (0, (100, 200), "turned upright (EXIF orientation 6)"),
        (50, (25, 50), "turned upright (EXIF orientation 6), 100x200 to 25x50"),
    ):
        stored = pack.store_picture(data, max_side, 10**6)
        assert ((stored.width, stored.height), stored.recoded) == (size, reason)
        with Image.open(io.BytesIO(stored.data)) as opened:
            assert (opened.size, "exif" in opened.info) == (size, False)
            expected = raw_sources.picture(1, (200, 100)).transpose(Image.Transpose.ROTATE_270).resize(size)
            assert np.abs(np.asarray(opened, int) - np.asarray(expected, int)).mean() < 4
