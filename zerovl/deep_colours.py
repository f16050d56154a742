"""Colours of 16 bits a channel, of which Pillow hands the upper 8, at their whole depth where they are small.

Pillow has a way to read such a file for each order of its bytes, and takes the upper one. Read the other way round, the
same file gives the lower ones.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zerovl.picture_looks import WHOLE, Look, see, usual_range
from zerovl.tiff_planes import deep_planes, has_deep_planes

_OTHER = {
    **{f"{bands};16L": f"{bands};16B" for bands in ("RGB", "RGBA", "RGBX")},
    **{f"{bands};16B": f"{bands};16L" for bands in ("RGB", "RGBA", "RGBX")},
    **{f"{bands};16N": f"{bands};16{'B' if sys.byteorder == 'little' else 'L'}" for bands in ("RGB", "RGBA", "RGBX")},
}
_GREY_AND_ALPHA = "LA;16B"
_ENOUGH = 64  # an upper byte from which on the eight bits are taken as they are: values above 14 bits


def has_deep_colours(image: Image.Image) -> bool:
    """Return whether a picture, opened and not yet loaded, has 16 bits a channel, of which Pillow keeps the upper 8.

    So it does with colours, and with grey beside alpha; grey alone keeps its 16 bits.
    """
    if has_deep_planes(image):
        return True
    if image.mode not in ("RGB", "RGBA", "LA") or image.format not in ("PNG", "TIFF"):
        return False
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def see_deep_colours(image: Image.Image, data: bytes) -> Look:
    """Like `see`, of a picture with `has_deep_colours` that was opened from `data`.

    Of 12 bits in 16 the upper eight would be nearly black: values are scaled by their range, as those of grey are.
    Alpha of as many bits as the colours is scaled along; any other is of 16 bits.
    """
    values = deep_planes(data, len(image.getbands())) if has_deep_planes(image) else None
    if values is not None:
        image = _of_upper_bytes(values, image)
    planes = image.split()
    if image.mode == "CMYK":
        return see(image)
    colours = len(planes) - (image.mode != "RGB")
    brightest = max(int(plane.getextrema()[1]) for plane in planes[:colours])  # type: ignore[arg-type]  # of one band
    if brightest >= _ENOUGH or "transparency" in image.info:
        return see(image)
    if values is None:
        lower = _lower_bytes(data)
        values = [_joined(upper, None if lower is None else lower[band]) for band, upper in enumerate(planes)]
    highest = max(int(plane.max()) for plane in values[:colours])
    low, high = usual_range(min(int(plane.min()) for plane in values[:colours]), highest, WHOLE)
    bits = next(each for each in WHOLE if highest <= each)
    white = [high] * colours + [bits if plane.max() <= bits else WHOLE[-1] for plane in values[colours:]]
    scaled = [_to_eight_bits(plane, most) for plane, most in zip(values, white, strict=True)]
    seen = Image.merge(image.mode, scaled)
    seen.info = image.info.copy()
    look = see(seen)
    return Look(look.image, [f"values of {low:g} to {high:g} to 8 bits", *look.changes], look.faults)


def _of_upper_bytes(values: Sequence[npt.NDArray[np.uint16]], image: Image.Image) -> Image.Image:
    """Return a picture as Pillow has one whose channels lie together, with all else that `image` tells."""
    seen = Image.merge(image.mode, [Image.fromarray((plane >> np.uint16(8)).astype(np.uint8)) for plane in values])
    seen.info = image.info.copy()
    return seen


def _joined(upper: Image.Image, lower: Image.Image | None) -> npt.NDArray[np.uint16]:
    """Return the values (H, W) of one channel; without lower bytes those between the ones that the upper may be."""
    high = np.asarray(upper).astype(np.uint16)
    return high * np.uint16(257) if lower is None else (high << np.uint16(8)) | np.asarray(lower)


def _to_eight_bits(values: npt.NDArray[np.uint16], white: float) -> Image.Image:
    scaled = values.astype(np.float32) * np.float32(255 / white)
    return Image.fromarray(np.clip(scaled, 0, 255).round().astype(np.uint8))


def _lower_bytes(data: bytes) -> Sequence[Image.Image] | None:
    """Return the lower byte of each channel; None where Pillow does not know how, as of colours times alpha."""
    image: Any = Image.open(io.BytesIO(data), formats=("PNG", "TIFF"))
    tiles = [tile._replace(args=_other_way(tile.args)) for tile in image.tile]
    if any(tile.args is None for tile in tiles):
        return None
    grey = any(_GREY_AND_ALPHA in str(tile.args) for tile in image.tile)
    image.tile = tiles
    image.load()
    bands: Sequence[Image.Image] = image.split()
    return [bands[1]] * 3 + [bands[3]] if grey else bands


def _other_way(arguments: Any) -> Any:
    """Return what makes Pillow's decoder take the other bytes; None where nothing does."""
    if isinstance(arguments, tuple):
        first = _other_way(arguments[0])
        return None if first is None else (first, *arguments[1:])
    # Grey and alpha of two bytes each are four channels of one.
    return "RGBA" if arguments == _GREY_AND_ALPHA else _OTHER.get(arguments)
