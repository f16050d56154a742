"""JPEGs whose headers Hypothesis changes: each is stored, left out or quarantined with a reason; nothing is raised."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tests.support import raw_sources
from tests.support.fuzzing import examples
from tests.support.odd_inputs.prepared import bounded_memory
from zerovl.data.filtering.left_out import small_picture
from zerovl.data.filtering.sample_filters import SampleFilters
from zerovl.data.raw.pack import Unit, pack
from zerovl.data.raw.records import Picture, Record
from zerovl.images import BrokenImageError, decode

MAX_PIXELS = 1_000_000
CAPTION = "a caption"


def whole(size: tuple[int, int], mode: str = "RGB", progressive: bool = False) -> bytes:
    """A JPEG with all that one may say of itself: EXIF with an orientation, a colour profile, a comment."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = raw_sources.picture(1, size, mode)
    return raw_sources.encoded(
        image, exif=exif, icc_profile=profile, comment=b"a comment", progressive=progressive, quality=80
    )


@pytest.fixture(autouse=True)
def _in_bounded_memory() -> Iterator[None]:
    with bounded_memory():
        yield


WHOLE = [whole((40, 30)), whole((12, 9)), whole((40, 30), "L"), whole((40, 30), "CMYK"), whole((40, 30), "RGB", True)]
MARKERS = bytes((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xD8, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0x01))


def segments(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """(marker, payload) of each segment before the scan, and the scan with all behind it."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found, data[at:]


def joined(parts: list[tuple[int, bytes]], rest: bytes, lie: int = 0) -> bytes:
    """The bytes again; `lie` is what the length of each segment is too large by."""
    heads = [
        struct.pack(">BBH", 0xFF, marker, (len(payload) + 2 + lie) & 0xFFFF) + payload for marker, payload in parts
    ]
    return b"\xff\xd8" + b"".join(heads) + rest


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A JPEG with one to four changes to its headers."""
    parts, rest = segments(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(parts) - 1))
        marker, payload = parts[place]
        fault = draw(st.sampled_from(("bytes", "marker", "cut", "twice", "gone", "swapped", "frame")))
        if fault == "bytes" and payload:  # the first ones say what the rest is: sizes, counts, offsets
            start = draw(st.integers(0, min(len(payload), 60) - 1) | st.integers(0, len(payload) - 1))
            value = draw(
                st.sampled_from((b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1")) | st.binary(max_size=8)
            )
            parts[place] = marker, payload[:start] + value + payload[start + len(value) :]
        elif fault == "marker":
            parts[place] = draw(st.sampled_from(MARKERS)), payload
        elif fault == "cut":
            parts[place] = marker, payload[: draw(st.integers(0, len(payload)))]
        elif fault == "twice":
            parts.insert(draw(st.integers(0, len(parts))), parts[place])
        elif fault == "gone" and len(parts) > 1:
            del parts[place]
        elif fault == "swapped":
            other = draw(st.integers(0, len(parts) - 1))
            parts[place], parts[other] = parts[other], parts[place]
        elif fault == "frame":
            depth, height, width, bands = (draw(st.sampled_from(values)) for values in FRAME)
            parts = [
                (kind, struct.pack(">BHHB", depth, height, width, bands) + its[6:] if 0xC0 <= kind <= 0xC2 else its)
                for kind, its in parts
            ]
    lie = draw(st.sampled_from((0, 0, 0, 1, -1, 1000)))
    return joined(parts, rest, lie)[: draw(st.sampled_from((1 << 20, 1 << 20, 700, 100, 20)))]


FRAME = ((8, 12, 0, 16), (0, 1, 9, 30, 65535), (0, 1, 12, 40, 65535), (0, 1, 3, 4, 255))


def test_what_is_changed_was_whole() -> None:
    for data in WHOLE:
        assert joined(*segments(data)) == data
        assert decode(data).changes[-1] == "turned upright (EXIF orientation 6)"


@examples(1000)
@given(data=changed())
def test_a_picture_is_decoded_or_refused_with_a_reason(data: bytes) -> None:
    refusal = ""
    try:
        decoded = decode(data, MAX_PIXELS)
    except BrokenImageError as error:
        refusal = str(error) or "no reason" * 200
    if refusal:
        assert len(refusal) <= 200
        return
    assert decoded.image.mode == "RGB"
    assert decoded.image.width * decoded.image.height <= MAX_PIXELS
    assert max(Image.open(io.BytesIO(small_picture(data))).size) <= 96


@examples(100)
@given(pictures=st.lists(changed(), min_size=1, max_size=8))
def test_a_shard_has_each_picture_or_says_why_not(pictures: list[bytes], tmp_path: Path) -> None:
    records = []
    for number, data in enumerate(pictures):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        records.append(Record(path.name, number, (CAPTION,), (number,), Picture(str(path))))
    filters = SampleFilters(min_side=16, max_aspect=3.0)
    packed = pack(Unit(str(tmp_path / "shards"), "a", "train", 0, tuple(records), 0, MAX_PIXELS, filters))
    broken = [row["error"] for row in packed.rows if row["error"] is not None]
    assert packed.samples + len(broken) + len(packed.left_out) == len(pictures)
    assert all(broken)
    assert all(entry.picture for entry in packed.left_out[:5])
    written = [path for path in (tmp_path / "shards").rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in written] == ([packed.bytes] if packed.samples else [])
    for path in written:
        path.unlink()
