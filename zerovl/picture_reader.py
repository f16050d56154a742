"""Pictures to arrays of pixels, one after the other: JPEGs by libjpeg-turbo straight into memory that is used again.

Pillow decodes with libjpeg-turbo too, but into four bytes a pixel of new memory, which then is copied. Where simplejpeg
is not installed, and for all that is not a plain JPEG, it is Pillow that decodes; the pixels are the same.

Legend: `H`, `W` pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from zerovl.images import decode_rgb
from zerovl.picture_looks import see

try:
    import simplejpeg
except ImportError:  # it is only faster
    simplejpeg = None

ANY_PIXELS = 1 << 62  # `prepare.max_pixels` has bounded the pictures already
# What can turn a JPEG or change its colours: the marker and first bytes of its segment.
_TELLING = ((0xE1, b"Exif\0"), (0xE2, b"ICC_PROFILE\0"))
_SCAN = 0xDA  # the marker behind which the picture's data begin
_ADOBE = 0xEE  # of the segment in which Adobe says what the channels are
_FRAMES = {0xC0, 0xC1, 0xC2}  # of the segment with the size: baseline, extended and progressive

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)
Size = tuple[int, int]  # width, height


class JpegDecoder(Protocol):
    """Decodes JPEGs in RGB, also to a half, a quarter or an eighth of their size."""

    def size(self, data: bytes) -> Size | None:
        """Return the size in the header; None for what it does not decode. Raises what hostile bytes lead it to."""
        ...

    def decode(self, data: bytes, size: Size, reduction: int) -> Pixels:
        """Return pixels whose sides are those of `size` over `reduction`, which is at most the shorter, rounded up.

        Raises `OSError` or `ValueError` for damaged bytes.
        """
        ...


class TurboDecoder:
    """Decodes by simplejpeg, into memory that the next picture is decoded into too."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def size(self, data: bytes) -> Size | None:
        """Return width and height of a JPEG with three channels that is not too large for Pillow."""
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        # Pillow refuses twice its limit from the header, with the reason; memory for it would be taken here.
        if colours not in ("YCbCr", "RGB") or width * height > 2 * (Image.MAX_IMAGE_PIXELS or ANY_PIXELS):
            return None
        return width, height

    def decode(self, data: bytes, size: Size, reduction: int) -> Pixels:
        """Return the pixels; they are valid until the next call."""
        width, height = (-(-side // reduction) for side in size)
        needed = width * height * 3
        if self._memory.size < needed:
            self._memory = np.empty(needed, np.uint8)
        return simplejpeg.decode_jpeg(  # type: ignore[no-any-return]
            data, "RGB", min_height=height, min_width=width, min_factor=reduction, buffer=self._memory[:needed]
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"_memory": np.empty(0, np.uint8)}


class PillowDecoder:
    """Decodes by Pillow: the reference of `TurboDecoder`, and what there is without simplejpeg."""

    def size(self, data: bytes) -> Size | None:
        """Return width and height of a JPEG with three channels."""
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        return image.size if image.mode == "RGB" else None

    def decode(self, data: bytes, size: Size, reduction: int) -> Pixels:
        """Return the pixels."""
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        width, height = (side // reduction for side in size)  # rounded down: what Pillow takes for "at least"
        image.draft("RGB", (width, height))
        return np.asarray(image)


@dataclass(frozen=True)
class OpenedPicture:
    """A picture whose size is known and whose pixels are decoded when they are asked for."""

    size: Size
    _decode: Callable[[int], Pixels]

    def pixels(self, reduction: int = 1) -> Pixels:
        """Return RGB pixels, (H / reduction, W / reduction, 3) rounded up.

        `reduction` is 1, 2, 4 or 8, and at most the shorter side; what is no plain JPEG gives (H, W, 3) whatever it is.
        Pixels are valid until the reader decodes the next picture. Raises `BrokenImageError`.
        """
        return self._decode(reduction)


class PictureReader:
    """Opens stored pictures; each process has one of its own, for one picture at a time."""

    def __init__(self, jpegs: JpegDecoder | None = None) -> None:
        self._jpegs = jpegs or (TurboDecoder() if simplejpeg else PillowDecoder())

    def open(self, data: bytes) -> OpenedPicture:
        """Read the header of a JPEG, or decode what is something else; raises `BrokenImageError`."""
        size = self.plain_size(data)
        if size is None:
            pixels = _decoded(data)
            return OpenedPicture((pixels.shape[1], pixels.shape[0]), lambda _reduction: pixels)
        return OpenedPicture(size, lambda reduction: self._jpeg(data, size, reduction))

    def plain_size(self, data: bytes) -> Size | None:
        """Return the size of a JPEG in RGB that looks as its values; None for anything else, broken bytes included."""
        try:
            size = self._jpegs.size(data)
            return size if size and _looks_as_its_values(data) else None
        except Exception:  # whatever a decoder raises for hostile bytes: `decode_rgb` gives the reason
            return None

    def size_in_ycbcr(self, data: bytes) -> Size | None:
        """Return `plain_size` of a JPEG that holds luminance and colours; None of one that may hold RGB itself."""
        size = self.plain_size(data)
        return size if size and not _may_hold_rgb(data) else None

    def _jpeg(self, data: bytes, size: Size, reduction: int) -> Pixels:
        try:
            return self._jpegs.decode(data, size, reduction)
        except (OSError, ValueError):  # Pillow's usual way forgives more, and has a reason where it does not
            return _decoded(data)


def _looks_as_its_values(data: bytes) -> bool:
    """Whether nothing that a JPEG in RGB says of itself turns it or changes its colours."""
    if not _tells(data):
        return True
    pixel = Image.new("RGB", (1, 1))
    # All that the picture says of itself: Pillow takes an orientation that is not in the EXIF from the XMP.
    pixel.info = Image.open(io.BytesIO(data), formats=("JPEG",)).info
    return not see(pixel).changes


def _tells(data: bytes) -> bool:
    """Whether a JPEG has a segment of `_TELLING`, or a header that is not one segment behind the other.

    Source: ITU-T T.81, B.1.1; Pillow takes ten times as long to read a header.
    """
    for found, place in _segments(data):
        if found is None or any(found == marker and data.startswith(begin, place) for marker, begin in _TELLING):
            return True
    return False


def _may_hold_rgb(data: bytes) -> bool:
    """Whether Adobe's segment says that a JPEG with three channels holds RGB, or their names do.

    So libjpeg reads them, but for a JFIF segment, which rules both there. True too where segments are not in order.
    """
    for found, place in _segments(data):
        if found is None:
            return True
        if found == _ADOBE and data.startswith(b"Adobe", place) and data[place + 11] == 0:
            return True
        if found in _FRAMES and data[place + 6 : place + 15 : 3] == b"RGB":
            return True
    return False


def _segments(data: bytes) -> Iterator[tuple[int | None, int]]:
    """Marker of each segment before a JPEG's scan and the place of its content; None where none begins."""
    place = 2
    while data[place] == 0xFF:
        if data[place + 1] == _SCAN:
            return
        yield data[place + 1], place + 4
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    yield None, place


def _decoded(data: bytes) -> Pixels:
    return np.asarray(decode_rgb(data, ANY_PIXELS))
