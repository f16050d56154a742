"""Samples of one tar that is read from front to back, by webdataset's own stages; nothing is dropped without a count.

What webdataset passes over in silence is looked at here: a tar that ends before its end mark, or goes on behind what
`tarfile` takes for the end (it takes a cut between two members for it, and a broken header), and samples that lack a
member. Keys end at the last dot, as in `zerovl.data.raw.tar_samples`; webdataset's own end at the first one, and would
lay `2021.05.0001.jpg` and its neighbours into one sample.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zerovl.data.raw.records import PICTURES, caption_error, stable_id
from zerovl.data.raw.tar_captions import ReadCaptions
from zerovl.data.shards import Sample
from zerovl.data.streams.addresses import Stream, cannot_read, stated_samples
from zerovl.data.streams.lost import Lost
from zerovl.errors import ZeroVLError

_END = bytes(2 * tarfile.BLOCKSIZE)  # every whole tar ends in two empty blocks
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # begin of gzip, bzip2 and xz
_REST = 1 << 20  # bytes behind the last member that are read at once
_MOST_ALONG = 100  # members before a sample that are held to see whether they go along with it

Raw = dict[str, Any]  # a sample as webdataset gives it: "__key__", and the content of each member by its extension


@dataclass(frozen=True)
class SampleRules:
    """What makes a sample of the members of one key."""

    source: str
    read_captions: ReadCaptions
    max_caption_bytes: int

    def sample(self, raw: Raw, address: str, lost: Lost) -> Sample | None:
        """Return the sample; None where it cannot be used, which is counted, as is each of its captions that cannot."""
        example = f"{address}:{raw['__key__']}"
        captions, problem = self._captions(raw)
        pictures = [extension for extension in raw if extension in PICTURES]
        if problem is None and len(pictures) != 1:
            problem = "two pictures with the same key" if pictures else "no picture with this key"
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
        return Sample(key, raw[pictures[0]], good, list(range(len(good))), stable_id(example), self.source)

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
        return self.read_captions(values, raw.get("txt"))


def read_tar(address: str, stream: Stream, rules: SampleRules, lost: Lost) -> Iterator[Sample]:
    """Give the usable samples of a tar in its order, and count the rest; closes the stream.

    Where the tar is damaged all that it should still have had is counted, by a file beside it (`stated_samples`),
    without one as a single sample. Raises `ZeroVLError` where bytes do not come for another reason than the tar's.
    """
    damage: list[str] = []
    watched = _Watched(address, stream)
    whole = 0
    try:
        for raw in _pairs_apart(_gathered(_grouped(address, watched, damage))):
            if damage and not _is_complete(raw):
                continue  # what the cut has left of a sample is among those that the tar should have had
            whole += 1
            sample = rules.sample(raw, address, lost)
            if sample is not None:
                yield sample
        if not damage and (problem := watched.problem_at_the_end()):
            damage.append(problem)
    finally:
        stream.close()
    if damage:
        _count_damage(address, damage[0], whole, lost)


def _count_damage(address: str, reason: str, whole: int, lost: Lost) -> None:
    stated = stated_samples(address)
    if stated is None or stated <= whole:
        lost.add(f"{reason}; at least one sample is lost", address)
    else:
        lost.add(f"{reason}; what it should still have had is lost", address, stated - whole)


def _grouped(address: str, stream: _Watched, damage: list[str]) -> Iterator[Raw]:
    """Give the members of each key, by webdataset; the first damage ends the tar and is kept."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    def ends(error: Exception) -> bool:
        if stream.failure:
            raise ZeroVLError(stream.failure)
        if not isinstance(error, (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError)):
            raise error
        if not damage:
            damage.append(f"damaged tar ({str(error.args[0]).partition(' @ ')[0] if error.args else 'no reason'})")
        return False

    twice: list[Exception] = []

    def notes(error: Exception) -> bool:
        if not isinstance(error, ValueError):
            raise error
        twice.append(error)
        return True

    files = tar_file_expander([{"url": address, "stream": stream}], handler=ends)
    for raw in group_by_keys(files, keys=_Keys(), handler=notes):
        if twice:
            raw["__problem__"] = "two members of one name"
            twice.clear()
        yield raw


class _Keys:
    """Splits a member's name at its last dot; one whose key is the last one's with more behind a dot lies with it."""

    def __init__(self) -> None:
        self._current = "/"

    def __call__(self, name: str) -> tuple[str | None, str | None]:
        """Return key and extension; (None, None) for what is no sample's: hidden files, and names without extension."""
        folder, _, base = name.rpartition("/")
        stem, _, extension = base.rpartition(".")
        if not stem or not extension or stem.startswith("."):
            return None, None
        key = f"{folder}/{stem}" if folder else stem
        if key.startswith(f"{self._current}."):
            return self._current, f"{key[len(self._current) + 1 :]}.{extension}"
        self._current = key
        return key, extension


def _is_complete(raw: Raw) -> bool:
    return any(extension in PICTURES for extension in raw) and ("txt" in raw or "json" in raw)


def _gathered(samples: Iterator[Raw]) -> Iterator[Raw]:
    """Lay what goes along with a sample behind it into that one: `1.a.json` and `1.b.npy`, sorted before `1.jpg`."""
    held: list[Raw] = []
    for raw in samples:
        key = raw["__key__"]
        for one in held:
            if one["__key__"].startswith(f"{key}."):
                stem = one["__key__"][len(key) + 1 :]
                raw = {f"{stem}.{name}": one[name] for name in one if not name.startswith("__")} | raw
        held = [one for one in held if not one["__key__"].startswith(f"{key}.")]
        if len(held) == _MOST_ALONG or (held and _stem(held[-1]["__key__"]) != _stem(key)):
            yield from held
            held = []
        if _is_complete(raw):
            yield raw
        else:
            held.append(raw)
    yield from held


def _pairs_apart(samples: Iterator[Raw]) -> Iterator[Raw]:
    """Give each sample, and behind it the pairs among what goes along with it: `1.2.jpg` and `1.2.txt` of `1`."""
    for raw in samples:
        yield raw
        along: dict[str, Raw] = {}
        for name, content in raw.items():
            stem, dot, extension = name.rpartition(".")
            if dot:
                along.setdefault(stem, {"__key__": f"{raw['__key__']}.{stem}"})[extension] = content
        yield from filter(_is_complete, along.values())


def _stem(key: str) -> str:
    """Return a key up to the first dot of its last part, where webdataset itself would end it."""
    folder, slash, base = key.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


class _Watched:
    """A stream whose own failures are told from damage of the tar in it, and whose last bytes are known."""

    def __init__(self, address: str, stream: Stream) -> None:
        self.failure = ""  # why bytes did not come; webdataset writes into the errors that pass through it
        self._address = address
        self._stream = stream
        self._head = self._tail = b""

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._stream.read(size)
        except (OSError, ZeroVLError) as error:
            self.failure = str(error if isinstance(error, ZeroVLError) else cannot_read(self._address, error))
            raise
        self._head = self._head or data[: len(_COMPRESSED[-1])]
        self._tail = (self._tail + data)[-len(_END) :] if len(data) < len(_END) else data[-len(_END) :]
        return data

    def problem_at_the_end(self) -> str | None:
        """Read on behind the last member; what speaks against it being the last, None where nothing does.

        The end mark of a compressed tar is inside, and its decompressor has told of a cut.
        """
        compressed = self._head.startswith(_COMPRESSED)
        only_zeros = True
        while data := self._rest():
            only_zeros &= not data.strip(b"\0")
        if compressed:
            return None
        if not only_zeros:  # `tarfile` takes a broken header for the end
            return "damaged tar: a broken header, or members behind its end mark"
        return None if self._tail == _END else "truncated tar: no end mark"

    def _rest(self) -> bytes:
        try:
            return self.read(_REST)
        except (OSError, ZeroVLError):
            raise ZeroVLError(self.failure) from None
