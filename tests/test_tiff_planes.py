"""TIFFs of 16 bits whose channels lie one behind the other: seen as those whose channels lie together."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.deep_png import deep_tiff, planar_tiff
from zerovl.images import BrokenImageError, decode, decode_rgb

RAMP = np.linspace(0, 1, 60 * 40).reshape(40, 60)
TURNED = [(274, 3, [6])]  # EXIF orientation


def ramps(most: int, bands: int) -> np.ndarray:
    """(H, W, bands) values, of which the fourth is alpha."""
    planes = [RAMP, RAMP[::-1], RAMP[:, ::-1], np.ones_like(RAMP)][:bands]
    return (np.stack(planes, axis=-1) * most).astype(np.uint16)


@pytest.mark.parametrize("most", [200, 300, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("rows", [40, 7])
def test_as_if_the_channels_lay_together(rows: int, bands: int, packed: bool, order: str, most: int) -> None:
    values = ramps(most, bands)
    alpha = [(338, 3, [2])] if bands == 4 else []
    found, expected = decode(planar_tiff(values, order, packed, rows, alpha)), decode(deep_tiff(values, order, packed))
    assert np.array_equal(np.asarray(found.image), np.asarray(expected.image))
    assert found.changes == expected.changes
    assert np.asarray(found.image).max() > 60


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_else_the_file_says(order: str, packed: bool) -> None:
    values = ramps(4095, 3)
    upright = np.asarray(decode_rgb(planar_tiff(values, order, packed, 7)))
    assert np.array_equal(np.asarray(decode_rgb(planar_tiff(values, order, packed, 7, TURNED))), np.rot90(upright, -1))
    unknown = np.dstack([values, np.zeros_like(RAMP)])  # a fourth channel that is not said to be anything
    assert np.array_equal(np.asarray(decode_rgb(planar_tiff(unknown, order, packed, 7, [(338, 3, [0])]))), upright)


@pytest.mark.parametrize("packed", [False, True])
def test_colours_that_are_multiplied_by_alpha(packed: bool) -> None:
    values = ramps(65535, 4)
    values[..., 3] = 32768
    values[..., :3] //= 2
    found = np.asarray(decode_rgb(planar_tiff(values, "<", packed, 40, [(338, 3, [1])]))).astype(int)
    expected = (ramps(65535, 3) // 257 + 255) / 2  # half of it on white
    assert np.abs(found - expected).max() <= 2


def test_damaged_ones_are_broken_pictures() -> None:
    whole = planar_tiff(ramps(4095, 3), "<", False, 40)
    channels, strips = b"\x15\x01\x03\0\x01\0\0\0", b"\x11\x01\x04\0"
    assert decode(whole).changes
    many = whole.replace(channels + b"\x03", channels + b"\x09").replace(strips + b"\x03", strips + b"\x01")
    for data in (whole[:-100], whole.replace(strips + b"\x03", strips + b"\x01"), many):
        with pytest.raises(BrokenImageError):
            decode_rgb(data)
    pixels = bytearray(whole)
    pixels[8:3000] = bytes(2992)  # what can be read is used
    assert decode(bytes(pixels)).image.size == (60, 40)
