"""Samples of a WebDataset tar: members that share a key, grouped, with pictures as byte ranges.

Only headers, captions and JSON are read here; pictures are left where they are, so that memory does not grow with
the number of pairs and the packing processes read them themselves.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from zerovl.data.raw.records import Picture, name_error

_PICTURES = ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
_MAX_TEXT = 16 << 20  # bytes of a .txt or .json that are read at all


@dataclass(slots=True)
class TarSample:
    """The members of one key; a `problem` quarantines the whole sample."""

    key: str
    origin: str
    picture: Picture | None = None
    text: bytes | None = None
    description: bytes | None = None
    problem: str | None = None

    @property
    def complete(self) -> bool:
        """Whether there is a picture, and something that may hold its caption."""
        return self.picture is not None and (self.text is not None or self.description is not None)


class DamagedTarError(Exception):
    """The rest of a tar cannot be read."""


def read_samples(path: str, name: str) -> Iterator[TarSample]:
    """Give consecutive members grouped by key; broken members and a broken end come as samples with a problem."""
    current: TarSample | None = None
    try:
        with open(path, "rb") as file:
            for member in whole_members(file):
                problem = _member_problem(member)
                if problem:
                    yield TarSample("", f"{name}:{member.name[:200]}", problem=problem)
                    continue
                if member.isdir():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                if not stem or not extension:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if current is None or key != current.key:
                    if current is not None:
                        yield current
                    current = TarSample(key, f"{name}:{key}")
                _take(current, member, extension.lower(), file, path)
    except DamagedTarError as error:
        if current is not None and current.complete:
            yield current
        yield TarSample("", name, problem=f"{error}; what comes before it is used")
        return
    except OSError as error:
        yield TarSample("", name, problem=f"cannot be read: {error.strerror or error}")
        return
    if current is not None:
        yield current


def whole_members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Members whose bytes are all there; raises `DamagedTarError` where the tar ends before its end mark.

    `tarfile` itself takes a cut in a header, or rubbish between members, for the end of the archive.
    """
    size = file.seek(0, 2)
    file.seek(0)
    position = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.size < 0 or member.offset <= position:
                    raise DamagedTarError(f"damaged tar at byte {tar.offset}")
                if member.isreg() and member.offset_data + member.size > size:
                    raise DamagedTarError(f"truncated tar: {member.name[:200]!r} ends behind the file's {size} bytes")
                position = member.offset
                yield member
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            end = tar.offset
    except (tarfile.TarError, OverflowError, ValueError, EOFError) as error:
        raise DamagedTarError(f"not a tar, or truncated ({error or 'empty file'})") from None
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise DamagedTarError(f"truncated tar: no end mark at byte {end}")
    if block.strip(b"\0"):
        raise DamagedTarError(f"damaged tar at byte {end}")


def _member_problem(member: tarfile.TarInfo) -> str | None:
    if member.isdir():
        return None
    if member.issym() or member.islnk():
        return f"a link in a tar (to {member.linkname[:200]!r})"
    if not member.isreg() or member.issparse():
        return "neither a plain file nor a folder in a tar"
    return name_error(member.name)


def _take(sample: TarSample, member: tarfile.TarInfo, extension: str, file: IO[bytes], path: str) -> None:
    if extension in _PICTURES:
        if sample.picture is not None:
            sample.problem = "two pictures with the same key"
        sample.picture = Picture(path, member.offset_data, member.size)
    elif extension in ("txt", "json"):
        if member.size > _MAX_TEXT:
            sample.problem = f".{extension} of {member.size} bytes, more than {_MAX_TEXT}"
            return
        file.seek(member.offset_data)
        content = file.read(member.size)
        if extension == "txt":
            sample.text = content
        else:
            sample.description = content
