"""What every reader yields, and the checks that all of them share."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

PICTURES = ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")  # endings in a tar
UNREAD = ("heic", "heif")  # endings of pictures that are not read, which is said of them
MISSING = "missing file"  # why a picture that is not there is quarantined
_SHOWN = 200  # characters of a refused caption that are kept
_LEADS_OUT = ("..", ":", "\\")  # of a name that does not begin with "/" and leaves its folder


@dataclass(frozen=True, slots=True)
class Picture:
    """Where the bytes of a picture lie: a whole file, or a range of a tar."""

    path: str
    offset: int = 0
    size: int | None = None  # bytes; None: the whole file


@dataclass(frozen=True, slots=True)
class Record:
    """One sample of the input, or one input that is quarantined (`error` says why, `picture` is None)."""

    origin: str
    image_id: int | None = None
    captions: tuple[str, ...] = ()
    caption_ids: tuple[int, ...] = ()
    picture: Picture | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The records of one split of one source, in a fixed order."""

    records: Iterator[Record]
    total: int | None = None  # records, where that is known beforehand
    notes: Sequence[str] = ()  # what was left out on purpose, for the user to read; whole once the records are read
    without_ids: bool = False  # its source gives pictures no ids, so what has equal bytes may be one picture


def caption_error(text: str, max_bytes: int) -> str | None:
    """Return why a caption cannot be used; None if it can."""
    if is_blank(text):
        return "empty caption"
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "caption is not valid Unicode (a lone surrogate)"
    return f"caption of {size} bytes, more than {max_bytes}" if size > max_bytes else None


def is_blank(text: str) -> bool:
    """Return whether nothing in a text is visible."""
    return not any(map(_is_visible, text))


def _is_visible(character: str) -> bool:
    """Return whether a character shows: spaces do not, nor do signs of format, as U+FEFF and U+200B."""
    return not character.isspace() and unicodedata.category(character) != "Cf"


def shown(text: str) -> tuple[str, ...]:
    """Return the head of a refused caption, fit for a table; nothing for an empty one."""
    head = text[:_SHOWN].encode("utf-8", "replace").decode("utf-8").strip()
    return (head,) if head else ()


def printable(text: str) -> str:
    """Return `text` fit for a table: bytes of a name that are not UTF-8, and lone surrogates, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def name_error(name: str) -> str | None:
    """Return why a file name of an annotation or a tar is refused; None if it stays inside its folder."""
    if not name.strip():
        return "no file name"
    if "\0" in name:
        return "file name with a zero byte"
    if not name.startswith("/") and not any(mark in name for mark in _LEADS_OUT):
        return None  # as `pathlib` says too, in a twentieth of the time: it is asked of each member of a tar
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return f"absolute file name {name[:_SHOWN]!r}"
    if ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts:
        return f"file name {name[:_SHOWN]!r} leaves its folder"
    return None


def is_tar(name: str) -> bool:
    """Return whether a file has the ending of a tar, in whatever letters."""
    return name[-4:].lower() == ".tar"


def is_debris(name: str) -> bool:
    """Return whether a file or folder is none of the user's: hidden, as macOS's `._0.tar`, or unpacked by macOS."""
    return name.startswith(".") or name == "__MACOSX"


def whole_number(value: object) -> int | None:
    """Return `value` as an id (0 to 2**63 - 1), from an int or decimal digits; None if it is not one."""
    if isinstance(value, str):
        text = value.strip()
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 1 << 63 else None


def stable_id(text: str) -> int:
    """Return a 63-bit id that depends on the text alone."""
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as a JSON file may escape it
        content = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8]) >> 1
