"""Samples of a WebDataset tar: members that share a key, grouped, with pictures as byte ranges.

Only headers, captions and JSON are read here; pictures are left where they are, so that memory does not grow with
the number of pairs and the packing processes read them themselves. `zerovl.data.raw.tar_keys` says what a key is.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from zerovl.data.raw.records import PICTURES, UNREAD, Picture
from zerovl.data.raw.tar_keys import RecentKeys, roots, split_name
from zerovl.data.raw.tar_members import (
    TWICE,
    TWO_PICTURES,
    DamagedTarError,
    GoesOnError,
    member_problem,
    whole_members,
)
from zerovl.data.stated_samples import Stated
from zerovl.errors import ZeroVLError
from zerovl.images import not_read
from zerovl.log import logger

_MAX_TEXT = 16 << 20  # bytes of a .txt or .json that are read at all
_HELD = 512 << 20  # bytes of samples that wait for their other members
_MOST_SAMPLES = 1_000_000  # of a tar: of more, whoever says so is not believed
_HELD_EACH = 500  # bytes of one beside its texts, about
LACKING = "a whole tar has fewer samples than the _stats.json or .idx beside it states"
LACKING_FIX = "get the tar again, or delete that file if they were taken out on purpose"

Expected = Callable[[], Stated | None]  # asked at a tar's end: how many samples it should have, None: not known


@dataclass(slots=True)
class TarSample:
    """The members of one key; a `problem` quarantines the whole sample."""

    key: str
    origin: str
    picture: Picture | None = None
    text: bytes | None = None
    description: bytes | None = None
    problem: str | None = None
    unread: bool = False  # whether there is a picture of a kind that is not read, which matters where no other comes
    goes_along: bool = False  # with another sample, and is none itself while it lacks something
    came_before: bool = False  # and was given: these are members that lay elsewhere
    stated: str = ""  # of one that is not in a whole tar: how many there are, and what states more

    @property
    def complete(self) -> bool:
        """Whether there is a picture, and something that may hold its caption."""
        return self.picture is not None and self.has_caption

    @property
    def has_caption(self) -> bool:
        """Whether there is something that may hold its caption."""
        return self.text is not None or self.description is not None

    @property
    def is_lost(self) -> bool:
        """Whether it lacks something for good, and is neither along with another sample nor already given."""
        nothing = self.picture is None and not self.has_caption
        return not (self.complete or self.goes_along or (self.came_before and nothing))

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, about."""
        return _HELD_EACH + len(self.text or b"") + len(self.description or b"")


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


def read_samples(path: str, name: str, stated: Expected, known: int | None = None) -> Iterator[TarSample]:
    """Give the samples of a tar, those whose members do not lie together last.

    Broken members come as samples with a problem, and so does each sample that a broken end has cost: as many as are
    `known` from when the tar was whole, else as `stated` says, or one where it is not known. Of a whole tar each that
    `stated` says and that is not there comes likewise. Raises `ZeroVLError` for an unsorted tar that is too large to
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
    except (DamagedTarError, OSError) as error:
        rest = [sample for sample in grouping.rest() if sample.complete or not grouping.is_open(sample)]
        yield from rest
        reason = f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        if isinstance(error, GoesOnError):
            logger().warning(
                f"{name}: {error}; what is behind it is not read. To write one whole tar of it: {error.fix}"
            )
        if known is None and (found := stated()) is not None:
            known = found.samples
        yield from _lost(known, name, reason, given + len(rest))
        return
    for sample in grouping.rest():
        given += 1
        yield sample
    yield from lacking_samples(stated(), name, given)
    if grouping.scattered:
        logger().warning(
            f"{name}: {grouping.scattered} of its samples do not lie together and were gathered in memory; "
            "`tar --sort=name` writes a tar that is read in one pass"
        )


def _add(grouping: _Grouping, member: tarfile.TarInfo, file: IO[bytes], path: str, name: str) -> Iterator[TarSample]:
    """Put a member where it belongs; gives what became whole, or has a problem of its own."""
    problem = member_problem(member)
    if problem:
        yield TarSample("", f"{name}:{member.name[:200]}", problem=problem)
        return
    parts = None if member.isdir() else split_name(member.name)
    if parts is None:
        return
    key, extension = parts
    yield from grouping.move_to(key)
    if grouping.taking is not None:
        _take(grouping.taking, member, extension, file, path)


class _Grouping:
    """Puts members together by key: those of the current one, and samples that lack something and wait for it.

    Where every sample lies together, one is given as soon as the next begins, and those that wait are few. Once a key
    comes back, the tar is known to be unsorted: then all further samples wait for its end. A key may come back as often
    as it likes while its root is the same: the sample with whose key it begins, as `1` of `1.seg`.
    """

    def __init__(self, name: str) -> None:
        self.taking: TarSample | None = None  # whose members come now
        self.root: TarSample | None = None  # of `taking`, or that one itself
        self.scattered = 0  # samples whose members did not lie together
        self._name = name
        self._came = RecentKeys()
        self._waiting: dict[str, TarSample] = {}
        self._held = 0

    def move_to(self, key: str) -> Iterator[TarSample]:
        """Let the members of `key` come; gives samples that need not wait any more."""
        if self.taking is not None and self.taking.key == key:
            return
        root = self.root
        if root is not None and f"{key}.".startswith(f"{root.key}."):
            if self.taking is not None and self.taking is not root:
                yield from self._wait(self.taking)
            self.taking = root if key == root.key else self._waiting_or_new(key)
            return
        yield from self._leave_root()
        self.scattered += key in self._waiting
        self.root = self.taking = self._waiting_or_new(key)

    def is_open(self, sample: TarSample) -> bool:
        """Return whether the next member may be one of this sample."""
        return sample is self.taking or sample is self.root

    def rest(self) -> Iterator[TarSample]:
        """Give all that is left at the end of the tar."""
        for sample in (self.root, self.taking):
            if sample is not None:
                self._waiting[sample.key] = sample
        yield from self._all_that_wait()

    def _waiting_or_new(self, key: str) -> TarSample:
        sample = self._waiting.get(key)
        if sample is None:
            sample = TarSample(key, f"{self._name}:{key}", came_before=key in self._came)
            self._came.add(key)
            return sample
        self._forget(sample)
        return sample

    def _leave_root(self) -> Iterator[TarSample]:
        """Let the root go and the pairs that go along with it; half a pair waits, as its other half may come later."""
        root, last = self.root, self.taking
        if root is None:
            return
        if last is not None and last is not root:
            yield from self._wait(last)
        if self.scattered or not root.complete:
            yield from self._wait(root)
        else:
            yield root
        along = [] if self.scattered else list(self._came_last(root.key))
        for sample in reversed(along):
            sample.goes_along = root.complete
            if sample.complete:
                self._forget(sample)
                yield sample

    def _came_last(self, root: str) -> Iterator[TarSample]:
        """Give what waits and goes along with the sample of `root`, the last first."""
        for key, sample in reversed(self._waiting.items()):
            if key.startswith(f"{root}."):
                yield sample
            elif key != root:
                return

    def _forget(self, sample: TarSample) -> None:
        del self._waiting[sample.key]
        self._held -= sample.held_bytes

    def _all_that_wait(self) -> Iterator[TarSample]:
        """Give the samples that wait, but for those that lack something and go along with another one."""
        for sample in self._waiting.values():
            sample.goes_along |= any(root in self._came or root in self._waiting for root in roots(sample.key))
            if sample.unread and sample.picture is None and sample.has_caption:
                sample.problem = sample.problem or not_read("HEIC")
            if sample.complete or sample.is_lost:
                yield sample

    def _wait(self, sample: TarSample) -> Iterator[TarSample]:
        """Let a sample wait for more members; gives what waits where it is too much."""
        self._waiting[sample.key] = sample
        self._held += sample.held_bytes
        if self._held <= _HELD:
            return
        if self.scattered:
            raise ZeroVLError(
                f"{self._name}: its samples do not lie together, and there are too many to gather in memory; write it "
                "again sorted: mkdir DIR && tar -xf OLD.tar -C DIR && tar --sort=name -cf NEW.tar -C DIR ."
            )
        yield from self._all_that_wait()  # the tar is sorted so far: nothing more comes for them
        self._waiting.clear()
        self._held = 0


def lacking_samples(stated: Stated | None, name: str, given: int) -> Iterator[TarSample]:
    """Give a sample with a problem for each that a whole tar has not given and that a file beside it states."""
    if stated is not None and given < stated.samples <= _MOST_SAMPLES:
        said = f"{given} of the {stated.samples} samples that {stated.file} beside it states"
        for _ in range(stated.samples - given):
            yield TarSample("", name, problem=f"a whole tar has {said}; {LACKING_FIX}", stated=said)


def _lost(count: int | None, name: str, reason: str, given: int) -> Iterator[TarSample]:
    """Give a sample with a problem for each that the tar should have had and has not given."""
    if count is None or not given < count <= _MOST_SAMPLES:
        yield TarSample("", name, problem=f"{reason}; what comes before it is used, at least one sample is lost")
        return
    lost = f"{count - given} of {count} samples are lost"
    for _ in range(count - given):
        yield TarSample("", name, problem=f"{reason}; what comes before it is used, {lost}")


def _take(sample: TarSample, member: tarfile.TarInfo, extension: str, file: IO[bytes], path: str) -> None:
    if extension in PICTURES:
        if sample.picture is not None:
            sample.problem = TWO_PICTURES
        sample.picture = Picture(path, member.offset_data, member.size)
    elif extension in UNREAD:
        sample.unread = True
    elif extension in ("txt", "json"):
        if (sample.text if extension == "txt" else sample.description) is not None:
            sample.problem = TWICE
        content = b""  # of one that is too large: there is a caption, whatever it says
        if member.size > _MAX_TEXT:
            sample.problem = f".{extension} of {member.size} bytes, more than {_MAX_TEXT}"
        else:
            file.seek(member.offset_data)
            content = file.read(member.size)
        if extension == "txt":
            sample.text = content
        else:
            sample.description = content
