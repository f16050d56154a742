"""Samples of one tar that is read from front to back, those that webdataset gives; nothing is dropped without a count.

webdataset's own stages for this, `tar_file_expander` and `group_by_keys`, pass over in silence what is looked at here:
a tar that ends before its end mark, or goes on behind what `tarfile` takes for the end (it takes a cut between two
members for it, and a broken header), links, folders whose names begin and end in `__`, samples that lack a member. Keys
are those of `zerovl.data.raw.tar_keys`; webdataset's end at the first dot, and would lay `2021.05.0001.jpg` and its
neighbours into one sample. What lies together in one of them is read in any order; of what does not, a stream keeps the
names alone, and says at its end which samples it has lost so.
"""

from __future__ import annotations

import json
import tarfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, cast

from zerovl import lfs_pointers
from zerovl.data.raw.records import PICTURES, UNREAD, caption_error, stable_id
from zerovl.data.raw.tar_captions import ReadCaptions
from zerovl.data.raw.tar_keys import RecentKeys, roots, split_name
from zerovl.data.raw.tar_members import TWICE, TWO_PICTURES, end_error, member_problem
from zerovl.data.raw.tar_samples import LACKING, LACKING_FIX
from zerovl.data.shards import Sample
from zerovl.data.streams.addresses import Stream, cannot_read, stated_samples
from zerovl.data.streams.lost import Lost
from zerovl.errors import ZeroVLError
from zerovl.images import not_read

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # begin of gzip, bzip2 and xz
_REST = 1 << 20  # bytes behind the last member that are read at once
_AHEAD = 2 * tarfile.RECORDSIZE  # bytes, at most, that `tarfile` has read behind what it has looked at
_IN_VAIN = 16  # reads behind the end; `tarfile` asks once for each 10 KiB of a member that it passes over
_MOST_HELD = 100  # samples of one key of webdataset's that wait for further members
_MOST_HALVES = 1 << 18  # samples that lack a member, of a tar; of more, the first are counted at once
_SHOWN = 200  # characters of a name in a message
_APART = "its members do not lie together; `tar --sort=name` writes a tar in which they do"

Raw = dict[str, Any]  # a sample as webdataset gives it: "__key__", and the content of each member by its ending


@dataclass(frozen=True)
class SampleRules:
    """What makes a sample of the members of one key."""

    source: str
    read_captions: ReadCaptions
    max_caption_bytes: int

    def problem(self, raw: Raw) -> str | None:
        """Return why there is no sample in this; None where there is one."""
        return self._captions(raw)[1]

    def sample(self, raw: Raw, address: str, lost: Lost) -> Sample | None:
        """Return the sample; None where it cannot be used, which is counted, as is each of its captions that cannot."""
        example = f"{address}:{raw['__key__']}"
        captions, problem = self._captions(raw)
        good = []
        for caption in captions if problem is None else ():
            if error := caption_error(caption, self.max_caption_bytes):
                lost.add(f"{error} (of a picture's captions)" if len(captions) > 1 else error, example)
            else:
                good.append(caption.strip())
        if problem:
            lost.add(problem, example)
        if not good:
            return None
        key = f"{self.source}-{address.rpartition('/')[2]}-{raw['__key__']}"
        (picture,) = _pictures(raw)
        return Sample(key, raw[picture], good, list(range(len(good))), stable_id(example), self.source)

    def _captions(self, raw: Raw) -> tuple[list[str], str | None]:
        if raw.get("__problem__"):
            return [], str(raw["__problem__"])
        values: object = {}
        if "json" in raw:
            try:
                values = json.loads(raw["json"])
            except (ValueError, RecursionError) as error:
                return [], f"its .json is not valid JSON ({type(error).__name__})"
        if not isinstance(values, dict):
            return [], "its .json is not a mapping"
        captions, problem = self.read_captions(values, raw.get("txt"))
        if problem is None and len(pictures := _pictures(raw)) != 1:
            return [], TWO_PICTURES if pictures else _no_picture(raw)
        return captions, problem


def read_tar(address: str, stream: Stream, rules: SampleRules, lost: Lost) -> Iterator[Sample]:
    """Give the usable samples of a tar in its order, and count the rest; closes the stream.

    All that a tar should still have had is counted, by a file beside it (`stated_samples`); where it is damaged without
    one, as a single sample. Raises `ZeroVLError` where bytes do not come for another reason than the tar's.
    """
    damage: list[str] = []
    watched = _Watched(address, stream)
    halves = _Halves(address, rules, lost)
    whole = 0
    try:
        for raw in _gathered(_members(address, watched, damage, lost)):
            if not _is_complete(raw):
                if not damage:  # what a cut has left of a sample is among those that the tar should have had
                    halves.add(raw)
                continue
            whole += 1
            halves.given.add(raw["__key__"])
            sample = rules.sample(raw, address, lost)
            if sample is not None:
                yield sample
        if not damage and (problem := watched.problem_at_the_end()):
            damage.append(problem)
    finally:
        stream.close()
    halves.count_all()
    _count_missing(address, damage[0] if damage else "", whole + halves.counted, lost)


def _count_missing(address: str, damage: str, there: int, lost: Lost) -> None:
    stated = stated_samples(address)
    missing = 0 if stated is None else stated - there
    if damage and missing <= 0:
        lost.add(f"{damage}; at least one sample is lost", address)
    elif damage:
        lost.add(f"{damage}; what it should still have had is lost", address, missing)
    elif missing > 0:
        lost.add(f"{LACKING}; {LACKING_FIX}", address, missing)


def _members(address: str, stream: _Watched, damage: list[str], lost: Lost) -> Iterator[tuple[str, str, bytes]]:
    """Give key, ending and content of each member; the first damage ends the tar and is kept."""
    try:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|*") as tar:
            while (member := tar.next()) is not None:
                if problem := member_problem(member):
                    lost.add(problem, f"{address}:{member.name[:_SHOWN]}")
                elif not member.isdir() and (parts := split_name(member.name)):
                    content = tar.extractfile(member)
                    assert content is not None  # it is a plain file
                    yield *parts, content.read()
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            stream.members_end = tar.offset
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
        if stream.failure:
            raise ZeroVLError(stream.failure) from None
        damage.append(lfs_pointers.SAID if stream.is_pointer else f"damaged tar ({error or 'no reason'})")


def _pictures(raw: Raw) -> list[str]:
    return [ending for ending in raw if ending in PICTURES]


def _no_picture(raw: Raw) -> str:
    return not_read("HEIC") if any(ending in raw for ending in UNREAD) else "no picture with this key"


def _is_complete(raw: Raw) -> bool:
    return bool(_pictures(raw)) and ("txt" in raw or "json" in raw)


def _gathered(members: Iterator[tuple[str, str, bytes]]) -> Iterator[Raw]:
    """Give what lies together of each key, in the order in which keys come.

    What has the same key as webdataset cuts it lies together: `1.jpg`, `1.2.jpg`, `1.txt`, `1.2.txt` are two pairs.
    """
    held: dict[str, Raw] = {}
    together = ""
    for key, ending, content in members:
        if (stem := next(roots(key), key)) != together:
            yield from held.values()
            held, together = {}, stem
        if key not in held:
            if len(held) == _MOST_HELD:  # `2021.05.0001` and all others of their year
                yield held.pop(next(iter(held)))
            held[key] = {"__key__": key}
        raw = held[key]
        if ending in raw:
            raw["__problem__"] = TWO_PICTURES if ending in PICTURES else TWICE
        raw[ending] = content
    yield from held.values()


@dataclass
class _Half:
    """What is known of a sample that lacks a member where its others lie."""

    problem: str | None
    picture: bool = False
    caption: bool = False

    @property
    def is_a_pair(self) -> bool:
        """Whether both halves came, each by itself."""
        return self.picture and self.caption

    @property
    def is_nothing(self) -> bool:
        """Whether neither came, but for a mask or a class."""
        return not self.picture and not self.caption


class _Halves:
    """Samples that lack a member where it was looked for; whether one is lost or goes along shows at the tar's end."""

    def __init__(self, address: str, rules: SampleRules, lost: Lost) -> None:
        self.given = RecentKeys()  # of complete samples
        self.counted = 0
        self._address, self._rules, self._lost = address, rules, lost
        self._halves: dict[str, _Half] = {}

    def add(self, raw: Raw) -> None:
        """Keep a sample that is not complete, by name alone."""
        key = raw["__key__"]
        half = self._halves.get(key)
        if half is None:
            if len(self._halves) == _MOST_HALVES:
                first = next(iter(self._halves))
                self._count(first, self._halves.pop(first))
            half = self._halves[key] = _Half(self._rules.problem(raw))
        half.picture |= bool(_pictures(raw))
        half.caption |= "txt" in raw or "json" in raw

    def count_all(self) -> None:
        """Count those that are lost."""
        for key, half in self._halves.items():
            self._count(key, half)

    def _count(self, key: str, half: _Half) -> None:
        goes_along = any(root in self.given or root in self._halves for root in roots(key))
        if not half.is_a_pair and (goes_along or (half.is_nothing and key in self.given)):
            return
        self.counted += 1
        reason = _APART if half.is_a_pair or half.problem is None else half.problem
        self._lost.add(reason, f"{self._address}:{key}")


class _Watched:
    """A stream whose own failures are told from damage of the tar in it, and whose last bytes are known."""

    def __init__(self, address: str, stream: Stream) -> None:
        self.failure = ""  # why bytes did not come
        self.members_end = 0  # byte behind the last member
        self._address = address
        self._stream = stream
        self._head = b""
        self._kept = deque[bytes]()  # the last bytes that were read, `_AHEAD` of them at least
        self._kept_from = 0  # where they begin
        self._asked_in_vain = 0  # how often, behind the end

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._stream.read(size)
        except (OSError, ZeroVLError) as error:
            self.failure = str(error if isinstance(error, ZeroVLError) else cannot_read(self._address, error))
            raise
        self._head = self._head or data[: lfs_pointers.HEAD]
        if not data:
            self._asked_in_vain += 1
            if self._asked_in_vain > _IN_VAIN:
                raise EOFError("a member goes on behind its end")
            return data
        self._kept.append(data)
        while sum(map(len, self._kept)) - len(self._kept[0]) >= _AHEAD:
            self._kept_from += len(self._kept.popleft())
        return data

    @property
    def is_pointer(self) -> bool:
        """Whether there is a pointer of Git LFS in place of a tar."""
        return lfs_pointers.is_pointer(self._head)

    def problem_at_the_end(self) -> str | None:
        """Read on behind the last member; what speaks against it being the last, None where nothing does.

        The end mark of a compressed tar is inside, and its decompressor has told of a cut.
        """
        ahead = b"".join(self._kept)[max(0, self.members_end - self._kept_from) :]
        rest = chain([ahead], iter(self._rest, b""))
        error = None if self._head.startswith(_COMPRESSED) else end_error(self.members_end, rest)
        for _ in rest:
            pass  # a command tells at its end whether it has failed
        return error.reason if error else None

    def _rest(self) -> bytes:
        try:
            return self.read(_REST)
        except (OSError, ZeroVLError):
            raise ZeroVLError(self.failure) from None
