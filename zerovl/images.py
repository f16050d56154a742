"""Bytes of a picture to RGB as people see it, with a reason where that fails."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

from PIL import Image, TiffImagePlugin

from zerovl import lfs_pointers
from zerovl.deep_colours import has_deep_colours, see_deep_colours
from zerovl.picture_looks import Look, see

MAX_PIXELS = 50_000_000

# All that is tried, by content. Pillow knows forty more, among them EPS, which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", *(("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()))

# Begin of files of other kinds that people have among their pictures: (offset, bytes, name).
_OTHERS = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (0, b"%!PS", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"<svg", "SVG"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"MM\0+", "a big-endian TIFF with 64-bit offsets"),  # Pillow takes its head for that of a small one
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0")  # "+" of files that may be larger than 4 GB
# Tags of a TIFF; source: TIFF 6.0, sections 8, 15 and 19.
_WIDTH, _HEIGHT, _BITS, _STRIPS, _CHANNELS, _TILES, _VALUES = 256, 257, 258, 273, 277, 324, 339
_KINDS_OF_VALUES = {2: "whole numbers with a sign", 3: "floats", 5: "complex whole numbers", 6: "complex floats"}
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # formats whose further pictures are frames of an animation
_MOST_FRAMES = 64  # that are looked at for one that is not empty

# What PIL's format plugins raise on hostile or unsupported bytes; anything else is a defect of ours.
_PIL_ERRORS = (
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


class BrokenImageError(ValueError):
    """Says that bytes cannot be used as a picture; the message is the reason, short enough for a table."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, and how its bytes have it."""

    image: Image.Image  # RGB, upright, sRGB
    kind: str  # format by content: "JPEG"
    mode: str  # PIL's, before conversion
    changes: list[str]  # what makes it look other than its values: turned, other colours, ...
    faults: list[str]  # what it says of itself that cannot be used, and was ignored


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode to an RGB picture as people see it (`decode`); raises `BrokenImageError`."""
    return decode(data, max_pixels).image


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode one of `FORMATS`; raises `BrokenImageError`.

    EXIF orientation is obeyed, colour profiles are converted to sRGB, transparency is laid on white, values of more
    than 8 bits are scaled by their range; of an animation it is the first frame that is not of one colour. The number
    of pixels is checked from the header, before anything is decoded.
    """
    if not data:
        raise BrokenImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size check below is ours, and stricter
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > max_pixels:
                raise BrokenImageError(f"{width}x{height} pixels, more than {max_pixels}")
            mode = image.mode
            look = see_deep_colours(image, data) if has_deep_colours(image) else see(image)
            if image.format in _ANIMATED and getattr(image, "is_animated", False):
                look = _first_frame_with_content(image, look)
            return Decoded(look.image, image.format or "", mode, look.changes, look.faults)
    except BrokenImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenImageError(str(error)) from None
    except _PIL_ERRORS as error:
        reason = _unknown(data) if "cannot identify" in str(error) else f"{type(error).__name__}: {error}"
        raise BrokenImageError(reason[:200]) from None


def _unknown(data: bytes) -> str:
    if lfs_pointers.is_pointer(data):
        return lfs_pointers.SAID
    for offset, begin, name in _OTHERS:
        if data.startswith(begin, offset):
            return not_read(name)
    return _unknown_tiff(data) if data.startswith(_TIFF) else "not a picture"


def not_read(kind: str) -> str:
    """Return why a picture of a kind that is none of `FORMATS` cannot be used."""
    return f"{kind} is not read; make it one of {', '.join(FORMATS)}"


def _unknown_tiff(data: bytes) -> str:
    """Return which kind of TIFF it is that Pillow does not know, by its tags; they may be hostile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO(data)
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if data[2:3] == b"+" else 8))
            file.seek(tags.next)
            tags.load(file)
            if not all(tags.get(tag) for tag in (_WIDTH, _HEIGHT, _BITS)) or not (_STRIPS in tags or _TILES in tags):
                return "not a picture"  # cut short in its tags
            channels, bits = int(tags.get(_CHANNELS, 1)), int(tags[_BITS][0])
            values = _KINDS_OF_VALUES.get(tags.get(_VALUES, (1,))[0], "whole numbers")
    except _PIL_ERRORS:
        return "not a picture"
    what = f"{channels} channels" if channels > 1 else "1 channel"
    return f"this kind of TIFF ({what} of {values}, {bits} bits each) is not read; save it with 8 bits a channel"


def _first_frame_with_content(image: Image.Image, first: Look) -> Look:
    """Return the first frame that is not of one colour; the first one where there is none, or later ones are broken."""
    if not _is_empty(first.image):
        return first
    first = Look(first.image.copy(), first.changes, first.faults)  # Pillow writes the next frame over this one
    try:
        for number in range(1, min(getattr(image, "n_frames", 1), _MOST_FRAMES)):
            image.seek(number)
            image.load()
            look = see(image)
            if not _is_empty(look.image):
                look.changes.append(f"frame {number + 1}, those before are empty")
                return look
    except _PIL_ERRORS:
        return first
    return first


def _is_empty(rgb: Image.Image) -> bool:
    return all(low == high for low, high in rgb.getextrema())  # type: ignore[misc]  # one pair a band
