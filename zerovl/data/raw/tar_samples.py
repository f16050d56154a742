"""Samples of a WebDataset tar: members that share a key, grouped, with pictures as byte ranges.

Only headers, captions and JSON are read here; pictures are left where they are, so that memory does not grow with
the number of pairs and the packing processes read them themselves.

A key is a member's name up to its last dot, so that `2021.05.0001.jpg` keeps its place. WebDataset itself cuts at the
first dot, for `0001.seg.png` beside `0001.jpg`: a member whose key is another one's with more behind a dot goes along
with it, and nothing of it is read. Source: `base_plus_ext` of webdataset/tariterators.py, github.com/webdataset.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from zerovl.data.raw.records import PICTURES, Picture, name_error, whole_number
from zerovl.errors import ZeroVLError
from zerovl.log import logger

_MAX_TEXT = 16 << 20  # bytes of a .txt or .json that are read at all
_HELD = 512 << 20  # bytes of samples that wait for their other members
_MOST_SAMPLES = 1_000_000  # of a tar, that its statistics are believed
_HELD_EACH = 500  # bytes of one beside its texts, about


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

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, about."""
        return _HELD_EACH + len(self.text or b"") + len(self.description or b"")


class DamagedTarError(Exception):
    """The rest of a tar cannot be read."""


class UnfitTarError(Exception):
    """A tar is not whole, or its samples do not lie together; the message says which."""


def whole_samples(path: str, name: str) -> list[TarSample]:
    """Return what `read_samples` gives of a tar that is whole and sorted; raises `UnfitTarError` for any other."""
    grouping, found = _Grouping(name), list[TarSample]()
    try:
        with open(path, "rb") as file:
            for member in whole_members(file):
                found += _add(grouping, member, file, path, name)
                if grouping.scattered:
                    raise UnfitTarError(
                        "its samples do not lie together; `tar --sort=name` writes one in which they do"
                    )
    except DamagedTarError as error:
        raise UnfitTarError(str(error)) from None
    return [*found, *grouping.rest()]


def read_samples(path: str, name: str) -> Iterator[TarSample]:
    """Give the samples of a tar, those whose members do not lie together last.

    Broken members come as samples with a problem, and so does each sample that a broken end has cost: as many as the
    tar's `_stats.json` says, or one where there is none. Raises `ZeroVLError` for an unsorted tar that is too large to
    be held in memory.
    """
    grouping = _Grouping(name)
    given = 0
    try:
        with open(path, "rb") as file:
            for member in whole_members(file):
                for sample in _add(grouping, member, file, path, name):
                    given += bool(sample.key)
                    yield sample
    except DamagedTarError as error:
        rest = [sample for sample in grouping.rest() if sample.complete or sample is not grouping.current]
        yield from rest
        yield from _lost(path, name, str(error), given + len(rest))
        return
    except OSError as error:
        yield from _lost(path, name, f"cannot be read: {error.strerror or error}", given)
        return
    yield from grouping.rest()
    if grouping.scattered:
        logger().warning(
            f"{name}: {grouping.scattered} of its samples do not lie together and were gathered in memory; "
            "`tar --sort=name` writes a tar that is read in one pass"
        )


def _add(grouping: _Grouping, member: tarfile.TarInfo, file: IO[bytes], path: str, name: str) -> Iterator[TarSample]:
    """Put a member where it belongs; gives what became whole, or has a problem of its own."""
    problem = _member_problem(member)
    if problem:
        yield TarSample("", f"{name}:{member.name[:200]}", problem=problem)
        return
    folder, _, base = member.name.rpartition("/")
    stem, _, extension = base.rpartition(".")
    if member.isdir() or not extension or not stem or stem.startswith("."):  # "._0.jpg": what macOS puts beside 0.jpg
        return
    yield from grouping.move_to(f"{folder}/{stem}" if folder else stem)
    if grouping.current is not None and not grouping.beside:
        _take(grouping.current, member, extension.lower(), file, path)


class _Grouping:
    """Puts members together by key: those of the current one, and samples that lack something and wait for it.

    Where every sample lies together, one is given as soon as the next begins, and those that wait are few. Once a key
    comes back, the tar is known to be unsorted: then all further samples wait for its end.
    """

    def __init__(self, name: str) -> None:
        self.current: TarSample | None = None
        self.beside = False  # whether the last member only goes along with the current sample
        self.scattered = 0  # samples whose members did not lie together
        self._name = name
        self._waiting: dict[str, TarSample] = {}
        self._held = 0

    def move_to(self, key: str) -> Iterator[TarSample]:
        """Make the sample of `key` the current one; gives those that need not wait any more."""
        if self.current is not None:
            self.beside = key.startswith(f"{self.current.key}.")
            if self.beside or key == self.current.key:
                return
            yield from self._leave(self.current)
            self._drop_beside(key)
        self.beside = False
        self.current = self._waiting.pop(key, None)
        if self.current is None:
            self.current = TarSample(key, f"{self._name}:{key}")
            return
        self._held -= self.current.held_bytes
        self.scattered += 1

    def rest(self) -> Iterator[TarSample]:
        """Give all that is left at the end of the tar."""
        if self.current is not None:
            self._waiting[self.current.key] = self.current
        yield from self._waiting.values()

    def _drop_beside(self, key: str) -> None:
        """Forget what came last and only goes along with the sample of `key`: `1.cls.json`, sorted before `1.jpg`."""
        while self._waiting:
            last = self._waiting[next(reversed(self._waiting))]
            if last.complete or not last.key.startswith(f"{key}."):
                return
            del self._waiting[last.key]
            self._held -= last.held_bytes

    def _leave(self, sample: TarSample) -> Iterator[TarSample]:
        if sample.complete and not self.scattered:
            yield sample
            return
        self._waiting[sample.key] = sample
        self._held += sample.held_bytes
        if self._held <= _HELD:
            return
        if self.scattered:
            raise ZeroVLError(
                f"{self._name}: its samples do not lie together, and there are too many to gather in memory; write it "
                "again sorted: mkdir DIR && tar -xf OLD.tar -C DIR && tar --sort=name -cf NEW.tar -C DIR ."
            )
        yield from self._waiting.values()  # the tar is sorted so far: nothing more comes for them
        self._waiting.clear()
        self._held = 0


def _lost(path: str, name: str, reason: str, given: int) -> Iterator[TarSample]:
    """Give a sample with a problem for each that the tar should have had and has not given."""
    expected = _expected_samples(path)
    if expected is None or expected <= given:
        yield TarSample("", name, problem=f"{reason}; what comes before it is used, at least one sample is lost")
        return
    lost = f"{expected - given} of {expected} samples are lost"
    for _ in range(expected - given):
        yield TarSample("", name, problem=f"{reason}; what comes before it is used, {lost}")


def _expected_samples(path: str) -> int | None:
    """Return how many samples a tar should have, as img2dataset's `00000_stats.json` beside `00000.tar` says.

    Source: `write_stats` in img2dataset/logger.py of github.com/rom1504/img2dataset; `successes` are written.
    """
    try:
        stats = json.loads(Path(path).with_name(f"{Path(path).stem}_stats.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    count = whole_number(stats.get("successes")) if isinstance(stats, dict) else None
    return count if count is not None and count <= _MOST_SAMPLES else None


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
    if extension in PICTURES:
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
