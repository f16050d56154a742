"""What is transparent lies on white, whatever format and mode say so, and 16 bits beside it are not black."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.deep_png import COLOURS, COLOURS_AND_ALPHA, GREY, GREY_AND_ALPHA, deep_png, deep_tiff
from tests.support.raw_sources import encoded
from zerovl.images import decode, decode_rgb

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def colour(data: bytes) -> list[int]:
    """The picture's one colour."""
    pixels = np.asarray(decode_rgb(data)).reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return [int(value) for value in pixels[0]]


def channels(*planes: Any) -> Any:
    return np.stack(np.broadcast_arrays(*planes), axis=-1)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {"quality": 100})]
)
@pytest.mark.parametrize(("mode", "values"), [("RGBA", (10, 20, 30)), ("LA", (20,))])
def test_alpha_lies_on_white(mode: str, values: tuple[int, ...], kind: str, options: dict[str, Any]) -> None:
    own = np.resize(values, 3)
    for alpha in (0, 128, 255):
        found = colour(encoded(Image.new(mode, (8, 8), (*values, alpha)), kind, **options))
        assert np.abs(np.array(found) - (own * alpha + 255 * (255 - alpha)) / 255).max() <= 3, alpha


def test_a_colour_that_is_transparent_lies_on_white() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for kind in ("PNG", "GIF"):
        assert colour(encoded(palette, kind, transparency=1)) == [255, 255, 255]
        assert colour(encoded(palette, kind, transparency=0)) == [10, 20, 30]
    assert colour(encoded(palette, "PNG", transparency=bytes([255, 128]))) == [132, 137, 142]
    for image, transparent, other in (
        (Image.new("L", (8, 8), 7), 7, 8),
        (Image.new("RGB", (8, 8), (7, 7, 7)), (7, 7, 7), (7, 7, 8)),
        (Image.new("1", (8, 8), 0), 0, 255),
    ):
        assert colour(encoded(image, "PNG", transparency=transparent)) == [255, 255, 255]
        assert max(colour(encoded(image, "PNG", transparency=other))) <= 7


@pytest.mark.parametrize(("most", "transparent"), [(65535, 0), (4095, 0), (4095, 65535)])
def test_a_grey_of_16_bits_that_is_transparent_lies_on_white_and_is_no_part_of_the_range(
    most: int, transparent: int
) -> None:
    values = np.where(RAMP == 0, transparent, RAMP * most).astype(int)
    found = np.asarray(decode_rgb(deep_png(values[..., None], GREY, struct.pack(">H", transparent))))
    assert np.abs(found[..., 0] - np.where(RAMP == 0, 255, RAMP * 255)).max() <= 1


@pytest.mark.parametrize(
    ("kind", "alpha"),
    [
        (COLOURS, None),
        (COLOURS_AND_ALPHA, 65535),
        (COLOURS_AND_ALPHA, 4095),
        (GREY_AND_ALPHA, 65535),
        (GREY_AND_ALPHA, 4095),
    ],
)
def test_12_bits_in_16_are_not_black(kind: int, alpha: int | None) -> None:
    planes = [RAMP * 4095] * (1 if kind == GREY_AND_ALPHA else 3) + ([] if alpha is None else [alpha])
    seen = decode(deep_png(channels(*planes), kind))
    assert np.abs(np.asarray(seen.image)[..., 0] - RAMP * 255).max() <= 1
    assert seen.changes == ["values of 0 to 4095 to 8 bits"]


@pytest.mark.parametrize("kind", [GREY_AND_ALPHA, COLOURS_AND_ALPHA])
def test_alpha_of_16_bits_stays_as_it_is(kind: int) -> None:
    planes = [RAMP * 4095] * (1 if kind == GREY_AND_ALPHA else 3)
    found = np.asarray(decode_rgb(deep_png(channels(*planes, 32896), kind)))[..., 0]
    assert np.abs(found - (RAMP * 128 + 127)).max() <= 1
    whole = np.asarray(decode_rgb(deep_png(channels(*[RAMP * 65535] * len(planes), 65535), kind)))
    assert np.abs(whole[..., 0] - RAMP * 255).max() <= 1


@pytest.mark.parametrize("most", [2, 40, 200, 255, 300, 1023, 5000, 16383])
@pytest.mark.parametrize("kind", [COLOURS, COLOURS_AND_ALPHA, GREY_AND_ALPHA])
def test_small_values_in_16_bits_are_seen_as_grey_of_16_bits_is(most: int, kind: int) -> None:
    values = (RAMP * most).astype(int)
    expected = np.asarray(decode_rgb(deep_png(values[..., None], GREY)))
    planes = [values] * (1 if kind == GREY_AND_ALPHA else 3) + ([] if kind == COLOURS else [65535])
    assert np.array_equal(np.asarray(decode_rgb(deep_png(channels(*planes), kind))), expected)
    assert expected.max() > 70


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bands", [3, 4])
def test_small_values_in_16_bits_of_a_tiff(bands: int, packed: bool, order: str) -> None:
    values = channels(*[(RAMP * each).astype(int) for each in (200, 150, 100)], *([65535] if bands == 4 else []))
    found = np.asarray(decode_rgb(deep_tiff(values, order, packed)))
    assert np.abs(found - values[..., :3]).max() == 0
