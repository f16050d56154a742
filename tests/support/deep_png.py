"""PNGs and TIFFs of 16 bits a channel, of kinds that Pillow reads and does not write."""

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


def deep_tiff(values: npt.NDArray[Any], order: str, packed: bool) -> bytes:
    """A TIFF of (H, W, 3 or 4) values, with the bytes in an order of `struct`; packed by deflate or not packed."""
    height, width, bands = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(pixels) if packed else pixels
    bits = struct.pack(f"{order}{bands}H", *[16] * bands)
    tags = [  # source: TIFF 6.0, sections 2, 6 and 18
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, bands, 8 + len(data)),
        (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, bands),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        *([(338, 3, 1, 2)] if bands == 4 else []),
    ]
    start = 8 + len(data) + len(bits)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    entries = b""
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        entries += struct.pack(f"{order}HHI", tag, kind, count)
        entries += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    return head + data + bits + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
