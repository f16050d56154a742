"""The members of a tar that is read from front to back: where it is not whole, and which are no file of a sample.

Only headers are read here. Readers by offsets and as a stream agree on where a tar is whole by `end_error`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

from zerovl import lfs_pointers
from zerovl.data.raw.records import name_error

TWO_PICTURES = "two pictures with the same key"
TWICE = "two members of one name"

_MAX_HEADER = 16 << 20  # bytes of an extended header, which `tarfile` reads whole
_REST = 1 << 20  # bytes behind the last member that are read at once


class DamagedTarError(Exception):
    """The rest of a tar cannot be read; `reason` says why without the place, the same for all such tars."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason if at is None else f"{reason} at byte {at}")
        self.reason = reason


class GoesOnError(DamagedTarError):
    """A tar goes on behind its end mark, as two do that were written one behind the other."""

    fix = "mkdir DIR && tar --ignore-zeros -xf OLD.tar -C DIR && tar --sort=name -cf NEW.tar -C DIR ."


def whole_members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Give the members whose bytes are all there; raises `DamagedTarError` where the tar ends before its end mark.

    `tarfile` itself takes a cut in a header, or rubbish between members, for the end of the archive. What lies behind
    an end mark is no member of this tar: anything but zeros there raises `GoesOnError`.
    """
    size = file.seek(0, 2)
    file.seek(0)
    position = -1
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _Headers(file)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.size < 0 or member.offset <= position:
                    raise DamagedTarError("damaged tar", tar.offset)
                # Of a sparse file less is stored than its size.
                if member.isreg() and not member.issparse() and member.offset_data + member.size > size:
                    raise DamagedTarError(f"truncated tar: {member.name[:200]!r} ends behind the file's {size} bytes")
                position = member.offset
                yield member
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            end = tar.offset
    except (tarfile.TarError, OverflowError, ValueError, EOFError, RecursionError) as error:
        file.seek(0)
        if lfs_pointers.is_pointer(file.read(lfs_pointers.HEAD)):
            raise DamagedTarError(lfs_pointers.SAID) from None
        raise DamagedTarError(f"not a tar, or truncated ({error or 'empty file'})") from None
    file.seek(end)
    if problem := end_error(end, iter(lambda: file.read(_REST), b"")):
        raise problem


def end_error(end: int, behind: Iterable[bytes]) -> DamagedTarError | None:
    """Return what speaks against a tar being over where its members end; None where it is whole.

    Two empty blocks are the mark of the end. One is enough, as for `tar` itself: no member is lost then.

    Args:
        end: byte behind the last member.
        behind: all bytes from there on.
    """
    block = b""
    for data in behind:
        missing = tarfile.BLOCKSIZE - len(block)
        block += data[:missing]
        if len(block) == tarfile.BLOCKSIZE and missing and block.strip(b"\0"):
            return DamagedTarError("damaged tar", end)
        if data[missing:].strip(b"\0"):
            return GoesOnError("damaged tar: it goes on behind its end mark", end)
    return DamagedTarError("truncated tar: no end mark", end) if len(block) < tarfile.BLOCKSIZE else None


def member_problem(member: tarfile.TarInfo) -> str | None:
    """Return why a member is refused, whatever it belongs to; None for folders and plain files."""
    if member.isdir():
        return None
    if member.issym() or member.islnk():
        return f"a link in a tar (to {member.linkname[:200]!r})"
    if member.issparse():
        return "a sparse file in a tar; write the tar without --sparse"
    if not member.isreg():
        return "neither a plain file nor a folder in a tar"
    return name_error(member.name)


class _Headers:
    """A tar as `tarfile` reads headers from it; one that says it is larger than any is not taken into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise tarfile.ReadError(f"extended header of {size} bytes")
        return self._file.read(size)
