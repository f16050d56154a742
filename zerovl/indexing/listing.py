"""Which pictures there are to embed: those of a folder, of the tars in it, or those that a CSV names.

They are given one after the other, in an order that depends on their names alone; nothing is kept, so memory does not
grow with their number. Tars are WebDataset's, the project's own shards among them, and are read where they lie.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from zerovl.data.csv_rows import csv_rows
from zerovl.data.raw.file_names import FileNames, Found
from zerovl.data.raw.records import PICTURES, Picture, is_debris, is_tar, name_error, printable
from zerovl.data.raw.tar_keys import split_name
from zerovl.data.raw.tar_members import DamagedTarError, whole_members
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.sets import SUFFIXES

IDENTITY_BYTES = 16
_COLUMN = "image"  # of a CSV
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Listed:
    """One picture, or an input that is none (`problem` says why)."""

    key: str  # what it is called: "more/red.png", "train/0.tar:000017.jpg"
    path: str  # of its file, relative to the listing's root
    picture: Picture  # where its bytes lie
    identity: bytes = b""  # IDENTITY_BYTES; another one as soon as name, place, size or time differ
    problem: str = ""


class Listing(Protocol):
    """Gives the same pictures each time it is iterated, as long as the files stay as they are."""

    @property
    def root(self) -> Path:
        """Return the folder or tar that all of them lie in."""
        ...

    def __iter__(self) -> Iterator[Listed]: ...


@dataclass(frozen=True)
class FolderListing:
    """The pictures below a folder, those in its tars included; hidden files are left out."""

    root: Path

    def __iter__(self) -> Iterator[Listed]:
        if self.root.is_file():
            yield from _of_tar(self.root.name, self.root)
            return
        for path in _walk(self.root):
            relative = path.relative_to(self.root).as_posix()
            if is_tar(path.name):
                yield from _of_tar(relative, path)
            else:
                yield _of_file(relative, path)


@dataclass(frozen=True)
class CsvListing:
    """The pictures that the column `image` of a CSV names, below a folder, each once."""

    root: Path
    table: Path

    @cached_property
    def _files(self) -> FileNames:
        return FileNames(self.root)

    def __iter__(self) -> Iterator[Listed]:
        rows = csv_rows(self.table, strict=True)
        header = [cell.strip() for row in islice(rows, 1) for cell in row.cells]
        if _COLUMN not in header:
            raise ZeroVLError(f"{self.table}: no column {_COLUMN}; found {', '.join(header) or 'nothing'}")
        place = header.index(_COLUMN)
        seen: set[bytes] = set()
        for row in rows:
            if row.problem:
                yield Listed(f"line {row.lines}", "", Picture(""), problem=row.problem)
                continue
            name = row.cells[place]
            if (digest := digest_of(name)) not in seen:
                seen.add(digest)
                yield self.named(name)

    def named(self, name: str) -> Listed:
        """Return the picture that a cell names, found as `prepare` finds it."""
        problem = name_error(name)
        found = Found("", problem=problem) if problem else self._files.find(name)
        if found.problem:
            return Listed(printable(name), name, Picture(name), problem=found.problem)
        written = found.path == os.path.join(self.root, name)
        place = name if written else os.path.relpath(found.path, self.root)
        return replace(_of_file(place, Path(found.path)), key=printable(name))


def listing_of(images: Path, table: Path | None) -> Listing:
    """Return what lists the pictures of a folder or tar, or those of them that a CSV names.

    Raises `ZeroVLError` where there is no such folder or CSV, or nothing in it.
    """
    if table is not None:
        if not images.is_dir():
            raise ZeroVLError(f"{images}: no such folder; give the one with the pictures with --images")
        named = CsvListing(images, table)
        if next(iter(named), None) is None:
            raise ZeroVLError(f"{table}: has no rows; give a CSV that names at least one picture")
        return named
    if not images.is_dir() and not (is_tar(images.name) and images.is_file()):
        raise ZeroVLError(f"{images}: no such folder; give the one with the pictures or tars with --images")
    listing = FolderListing(images)
    if next(iter(listing), None) is None:
        raise ZeroVLError(f"{images}: no pictures in it ({', '.join(sorted(SUFFIXES))}), and no tars")
    return listing


def in_parts(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Give the items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _walk(folder: Path) -> Iterator[Path]:
    """Give files in the order of `sorted(folder.rglob("*"))`, with one folder in memory at a time."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False)) for entry in found if not is_debris(entry.name)
            )
    except OSError as error:
        raise ZeroVLError(f"{folder}: cannot be read ({error.strerror}); check its rights") from None
    for name, is_folder in entries:
        path = folder / name
        if is_folder:
            yield from _walk(path)
        elif (path.suffix.lower() in SUFFIXES or is_tar(name)) and path.is_file():
            yield path


def _of_file(relative: str, path: Path) -> Listed:
    key = printable(relative)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return Listed(key, relative, Picture(str(path)), problem=getattr(error, "strerror", None) or str(error))
    return Listed(key, relative, Picture(str(path)), digest_of(relative, status.st_size, status.st_mtime_ns))


def _of_tar(relative: str, path: Path) -> Iterator[Listed]:
    try:
        status = path.stat()
    except OSError as error:
        yield Listed(printable(relative), relative, Picture(str(path)), problem=error.strerror or str(error))
        return
    try:
        with open(path, "rb") as file:
            for member in whole_members(file):
                parts = split_name(member.name)  # None for debris, as in `prepare`
                if not member.isreg() or parts is None or parts[1] not in PICTURES:
                    continue
                picture = Picture(str(path), member.offset_data, member.size)
                place = (picture.offset, picture.size, status.st_size, status.st_mtime_ns)
                yield Listed(printable(f"{relative}:{member.name}"), relative, picture, digest_of(relative, *place))
    except (DamagedTarError, OSError) as error:
        reason = f"{error}; what comes before it is used"
        yield Listed(printable(relative), relative, Picture(str(path)), problem=reason)


def digest_of(name: str, *numbers: int | None) -> bytes:
    """Return the identity of a name, or of a text, with some numbers; IDENTITY_BYTES."""
    text = "/".join([*map(str, numbers), name]).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=IDENTITY_BYTES).digest()
