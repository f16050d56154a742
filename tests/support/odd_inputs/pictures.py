"""Pictures: an odd one between two good ones, in the layout with a CSV."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.support import raw_sources
from tests.support.odd_inputs.kind import Kind, Outcome
from tests.support.odd_inputs.tars import LFS_POINTER

JPEG = raw_sources.jpeg(1)
PNG = raw_sources.encoded(raw_sources.picture(1), "PNG")
SOF = JPEG.index(b"\xff\xc0")  # start of frame: length, precision, height, width
SCAN = JPEG.index(b"\xff\xda")


def write_source(folder: Path, put: Callable[[Path], object]) -> None:
    """Three samples, the second with what `put` makes in the place of its picture."""
    raw_sources.write_zerovl(folder, "train", 3)
    place = folder / "train/1.jpg"
    place.unlink()
    put(place)


def picture(of: str, what: str, data: Callable[[], bytes], outcome: Outcome) -> Kind:
    return Kind(of, what, lambda folder: write_source(folder, lambda place: place.write_bytes(data())), outcome)


def place(what: str, put: Callable[[Path], object], outcome: Outcome) -> Kind:
    return Kind("picture", what, lambda folder: write_source(folder, put), outcome)


def of_size(height: int, width: int) -> bytes:
    """The JPEG with other sides in its header."""
    return JPEG[: SOF + 5] + struct.pack(">HH", height, width) + JPEG[SOF + 9 :]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int = 40, height: int = 30, depth: int = 8, colours: int = 2, interlace: int = 0, more: bytes = b""
) -> bytes:
    """A PNG with this header, without any pixels; `more` comes behind the header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlace)
    return PNG[:8] + chunk(b"IHDR", header) + more + chunk(b"IEND", b"")


def pixels(size: int) -> bytes:
    return chunk(b"IDAT", zlib.compress(bytes(size)))


KINDS = [
    picture("picture", "empty file", lambda: b"", Outcome(2, 1, "empty file")),
    picture("picture", "page of HTML", lambda: b"<html>404</html>", Outcome(2, 1, "not a picture")),
    picture(
        "picture", "pointer of Git LFS", lambda: LFS_POINTER, Outcome(2, 1, "a pointer of Git LFS in place of the")
    ),
    picture("picture", "HEIC", lambda: b"\0\0\0\x18ftypheic" + bytes(99), Outcome(2, 1, "HEIC is not read")),
    picture("picture", "EPS", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", Outcome(2, 1, "EPS is not read")),
    picture("picture", "SVG", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", Outcome(2, 1, "SVG is not read")),
    picture("picture", "GIF without a frame", lambda: b"GIF89a" + bytes(7) + b";", Outcome(2, 1, "not a picture")),
    picture(
        "picture", "WebP cut short", lambda: raw_sources.encoded(raw_sources.picture(1), "WEBP")[:-40], Outcome(2, 1)
    ),
    picture("picture", "BMP of unknown compression", lambda: bmp(99), Outcome(2, 1)),
    picture(
        "picture",
        "TIFF whose directory is itself",
        lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        Outcome(2, 1, "not a picture"),
    ),
    place("missing file", lambda path: None, Outcome(2, 1, "missing file")),
    place("folder in its place", lambda path: path.mkdir(), Outcome(2, 1, "not a file")),
    place("pipe in its place", os.mkfifo, Outcome(2, 1, "not a file")),
    place("link to nothing", lambda path: path.symlink_to("gone.jpg"), Outcome(2, 1, "missing file")),
    place(
        "link to itself",
        lambda path: path.symlink_to(path),
        Outcome(2, 1, "cannot be read: Too many levels of symbolic links"),
    ),
    picture("JPEG", "cut in the scan", lambda: JPEG[: SCAN + 40], Outcome(2, 1)),
    picture("JPEG", "header alone", lambda: JPEG[:SCAN], Outcome(2, 1)),
    picture("JPEG", "first two bytes alone", lambda: JPEG[:2], Outcome(2, 1, "not a picture")),
    picture("JPEG", "65,535 x 65,535 pixels in the header", lambda: of_size(65535, 65535), Outcome(2, 1)),
    picture("JPEG", "no rows in the header", lambda: of_size(0, 40), Outcome(2, 1, "not a picture")),
    picture("JPEG", "more rows in the header than there are", lambda: of_size(3000, 40), Outcome(3, 0)),
    picture("JPEG", "segment of length 0", lambda: JPEG[:2] + b"\xff\xe0\0\0" + JPEG[2:], Outcome(3, 0)),
    picture("JPEG", "tables left out", lambda: JPEG[:2] + JPEG[SOF:], Outcome(2, 1)),
    picture("JPEG", "scan of zeros", lambda: JPEG[: SCAN + 14] + bytes(500) + b"\xff\xd9", Outcome(3, 0)),
    picture("JPEG", "broken EXIF", lambda: JPEG[:2] + exif(b"MM\0*\xff\xff\xff\xff") + JPEG[2:], Outcome(3, 0)),
    picture(
        "JPEG",
        "EXIF that points at itself",
        lambda: JPEG[:2] + exif(b"MM\0*\0\0\0\x08\0\0\0\0\0\x08") + JPEG[2:],
        Outcome(3, 0),
    ),
    picture("JPEG", "rubbish behind its end", lambda: JPEG + b"rubbish" * 100, Outcome(3, 0)),
    picture("PNG", "cut in the pixels", lambda: PNG[:-60], Outcome(2, 1)),
    picture(
        "PNG", "wrong checksum of the header", lambda: PNG[:29] + b"\0\0\0\0" + PNG[33:], Outcome(2, 1, "not a picture")
    ),
    picture("PNG", "2**31 - 1 columns and rows", lambda: png(2**31 - 1, 2**31 - 1), Outcome(2, 1)),
    picture("PNG", "no columns", lambda: png(0, 30), Outcome(2, 1, "not a picture")),
    picture("PNG", "no pixels", lambda: png(), Outcome(2, 1)),
    picture("PNG", "fewer pixels than its header says", lambda: png(more=pixels(100)), Outcome(2, 1)),
    picture("PNG", "colours without a palette", lambda: png(colours=3, more=pixels(41 * 30)), Outcome(3, 0)),
    picture("PNG", "depth of 3 bits", lambda: png(depth=3, more=pixels(121 * 30)), Outcome(2, 1, "not a picture")),
    picture("PNG", "text that unpacks to 100 MB", lambda: png(more=bomb() + pixels(121 * 30)), Outcome(2, 1)),
]


def bmp(compression: int) -> bytes:
    data = bytearray(raw_sources.encoded(raw_sources.picture(1), "BMP"))
    data[30:34] = compression.to_bytes(4, "little")
    return bytes(data)


def exif(tiff: bytes) -> bytes:
    content = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def bomb() -> bytes:
    return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 1))
