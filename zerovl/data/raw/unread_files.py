"""Files of a source that would be part of it, and are not read as they are: said by name, with the fix.

Reading them compressed would mean to unpack them at each pass, and pictures of tars are read by offset.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from zerovl.log import logger
from zerovl.text_format import plural

_UNPACK = {
    ".gz": "gunzip",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd --rm",
    ".lz4": "unlz4 --rm",
    ".zip": "unzip",
}
_SHORT = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}  # of .tar.gz and so on
_OTHER_TABLES = frozenset(
    {".json", ".ndjson", ".xlsx", ".xls", ".ods", ".pq", ".parq", ".arrow", ".feather", ".orc", ".avro", ".pkl", ".tab"}
)
_SHOWN = 3  # names in a line


def unpacked_name(name: str) -> str:
    """Return the name that a compressed file has when it is unpacked; "" for one that is not compressed."""
    stem, ending = _parts(name)
    if ending in _SHORT:
        return f"{stem}.tar"
    return stem if ending in _UNPACK else ""


def is_other_table(name: str) -> bool:
    """Return whether a file, compressed or not, is a table of a kind that is not read."""
    return _parts(unpacked_name(name) or name)[1] in _OTHER_TABLES


def say_unread(source: str, names: Sequence[str], kinds: str) -> None:
    """Warn of files of a source that are not read; `kinds` are the endings that are."""
    if names:
        logger().warning(f"source {source!r}: {unread_line(names, kinds)}")


def unread_line(names: Sequence[str], kinds: str) -> str:
    """Return the line about files that are not read: how many, which, and what to do."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    verb = "is" if len(names) == 1 else "are"
    return f"{plural(len(names), 'file')} {verb} not read: {shown}; {_fix(names[0], kinds)}"


def _fix(name: str, kinds: str) -> str:
    ending = _parts(name)[1]
    command = _UNPACK.get(_SHORT.get(ending, ending))
    return f"unpack first: {command} {shlex.quote(name)}" if command else f"write it as one of {kinds}"


def _parts(name: str) -> tuple[str, str]:
    """(a name without its last ending, that ending in small letters)."""
    ending = PurePosixPath(name).suffix
    return name.removesuffix(ending) if ending else name, ending.lower()
