"""Bytes of a picture to RGB, with a reason where that fails."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from PIL import Image

MAX_PIXELS = 50_000_000

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


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode to an RGB picture; raises `BrokenImageError`.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits, CMYK and palettes are converted.
    The number of pixels is checked from the header, before anything is decoded.
    """
    if not data:
        raise BrokenImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size check below is ours, and stricter
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > max_pixels:
                raise BrokenImageError(f"{width}x{height} pixels, more than {max_pixels}")
            image.load()
            return to_rgb(image)
    except BrokenImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenImageError(str(error)) from None
    except _PIL_ERRORS as error:
        reason = "not a picture" if "cannot identify" in str(error) else f"{type(error).__name__}: {error}"
        raise BrokenImageError(reason[:200]) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL mode to RGB without losing what the eye sees."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image).astype(np.float64)  # (H, W), 16 bits a value
        return Image.fromarray(np.clip(values / 257.0, 0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
