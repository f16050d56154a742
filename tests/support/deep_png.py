"""PNGs of 16 bits a channel, of kinds that Pillow reads and does not write."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy.typing as npt

from tests.support.odd_inputs.pictures import chunk

GREY, COLOURS, GREY_AND_ALPHA, COLOURS_AND_ALPHA = 0, 2, 4, 6  # source: PNG 1.2, 4.1.1


def deep_png(values: npt.NDArray[Any], kind: int, transparent: bytes = b"") -> bytes:
    """The file of (H, W, channels) values, with a value that is transparent."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    told = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + told + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
