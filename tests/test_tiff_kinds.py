"""TIFFs of kinds that Pillow does not read are said to be such, and damage is not taken for a kind."""

from __future__ import annotations

import struct

import pytest

from zerovl.images import BrokenImageError, decode


def tiff(channels: int, bits: int, values: int, order: str = "<") -> bytes:
    """A TIFF of 4x4 black pixels; `values` is 1 for whole numbers, 3 for floats; source: TIFF 6.0, sections 2, 19."""
    pixels = bytes(16 * channels * bits // 8)
    tags = [(256, 4), (257, 4), (259, 1), (262, 2 if channels == 3 else 1), (277, channels), (278, 4)]
    tags += [(279, len(pixels)), (258, bits), (339, values)]
    each, end = [], 8 + 2 + 12 * (len(tags) + 1) + 4
    for tag, value in sorted([*tags, (273, end + 12)]):
        if tag in (258, 339) and channels == 3:
            each.append(struct.pack(f"{order}HHII", tag, 3, 3, end + 6 * (tag == 339)))
        else:
            each.append(struct.pack(f"{order}HHII", tag, 4, 1, value))
    behind = struct.pack(f"{order}6H", *3 * [bits], *3 * [values])
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(each)) + b"".join(each) + bytes(4) + behind + pixels


def test_tiffs_of_whole_colours_and_grey_floats_are_read() -> None:
    assert decode(tiff(3, 8, 1)).mode == "RGB"
    assert decode(tiff(1, 32, 3)).mode == "F"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(3, 32, 3), r"this kind of TIFF \(3 channels of floats, 32 bits each\) is not read; save it with 8 bits"),
        (tiff(1, 16, 3), r"this kind of TIFF \(1 channel of floats, 16 bits each\) is not read"),
        (tiff(3, 32, 1), r"this kind of TIFF \(3 channels of whole numbers, 32 bits each\) is not read"),
        (tiff(3, 32, 1, order=">"), r"this kind of TIFF \(3 channels of whole numbers, 32 bits each\) is not read"),
        (tiff(3, 32, 3)[:60], "not a picture"),
        (b"MM\0*" + b"\xff" * 100, "not a picture"),
        (b"MM\0+\0\x08\0\0" + struct.pack(">Q", 16) + bytes(100), "a big-endian TIFF with 64-bit offsets is not read"),
    ],
)
def test_a_kind_of_tiff_that_is_not_read_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError, match=reason):
        decode(data)
