"""Small pictures for pages that work offline, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable

from PIL import Image

from zerovl.images import decode_rgb
from zerovl.picture_reader import ANY_PIXELS

QUALITY = 82  # of a JPEG

Fetch = Callable[[int], bytes]  # number of a picture -> its file's bytes


def thumbnails(images: Iterable[int], fetch: Fetch, side: int) -> dict[int, str]:
    """Make data URIs of pictures: the original bytes where they are small, else a JPEG of at most `side` pixels."""
    return {image: _thumbnail(fetch(image), side) for image in images}


def _thumbnail(data: bytes, side: int) -> str:
    picture = decode_rgb(data, ANY_PIXELS)
    kind = _kind(data)
    if kind and max(picture.size) <= side and len(data) <= side * side // 2:
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _kind(data: bytes) -> str | None:
    """Name the format, where every browser shows it."""
    if data.startswith(b"\xff\xd8"):
        return "jpeg"
    return "png" if data.startswith(b"\x89PNG") else None
