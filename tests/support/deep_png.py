"""PNGs and TIFFs of 16 bits a channel, of kinds that Pillow reads and does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
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
    height, _, bands = values.shape
    return _tiff(values.shape, order, packed, height, [values], [(338, 3, [2])] if bands == 4 else [])


def planar_tiff(
    values: npt.NDArray[Any], order: str, packed: bool, rows: int, more: Sequence[tuple[int, int, list[int]]] = ()
) -> bytes:
    """As `deep_tiff`, with the channels one behind the other, in strips of so many rows, and with more tags."""
    height, _, bands = values.shape
    strips = [values[top : top + rows, :, band] for band in range(bands) for top in range(0, height, rows)]
    return _tiff(values.shape, order, packed, rows, strips, [(284, 3, [2]), *more])


def _tiff(
    shape: tuple[int, ...],
    order: str,
    packed: bool,
    rows: int,
    strips: list[npt.NDArray[Any]],
    more: list[tuple[int, int, list[int]]],
) -> bytes:
    height, width, bands = shape
    pixels = [strip.astype(f"{order}u2").tobytes() for strip in strips]
    written = [zlib.compress(each) if packed else each for each in pixels]
    sizes = [len(each) for each in written]
    tags = [  # source: TIFF 6.0, sections 2, 6 and 18; types 3 and 4 are numbers of 16 and of 32 bits
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [16] * bands),
        (259, 3, [8 if packed else 1]),
        (262, 3, [2]),
        (273, 4, [8 + sum(sizes[:number]) for number in range(len(sizes))]),
        (277, 3, [bands]),
        (278, 4, [rows]),
        (279, 4, sizes),
        *more,
    ]
    data = b"".join(written)
    head, entries = (b"II*\0" if order == "<" else b"MM\0*"), b""
    for tag, kind, numbers in sorted(tags):
        content = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(content) > 4:
            content, data = struct.pack(f"{order}I", 8 + len(data)), data + content
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + content.ljust(4, b"\0")
    start = struct.pack(f"{order}I", 8 + len(data))
    return head + start + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
