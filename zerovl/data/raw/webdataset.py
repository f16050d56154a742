"""WebDataset shards as img2dataset writes them: `.jpg`, `.txt` and `.json` members that share a key.

Only headers, captions and JSON are read here; pictures are left where they are, as byte ranges, so
that memory does not grow with the number of pairs and the packing processes read them themselves.
"""

from __future__ import annotations

import json
import tarfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO

from zerovl.data.raw.records import Picture, Record, caption_error, name_error, shown, stable_id, whole_number

_PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_MAX_TEXT = 16 << 20  # bytes of a .txt or .json that are read at all
_REMEMBERED = 1 << 18  # ids in which a duplicate is looked for; the validate stage looks at all
# Two runs of img2dataset both count their keys from 0: ids of the second one start here.
SECOND_RUN = 1 << 62

Opened = AbstractContextManager[str]


@dataclass(slots=True)
class _Sample:
    """The members of one key; a `problem` quarantines the whole sample."""

    key: str
    origin: str
    picture: Picture | None = None
    text: bytes | None = None
    description: bytes | None = None
    problem: str | None = None
    broken: list[Record] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.picture is not None and (self.text is not None or self.description is not None)


class _DamagedError(Exception):
    """The rest of a tar cannot be read."""


def read(tars: Iterable[tuple[str, Opened]], first_id: int, max_caption_bytes: int) -> Iterator[Record]:
    """Records of tars in the given order: (name for messages, context that gives a local path).

    An image id is the JSON's `image_id` (as our own shards have it), else `first_id` plus the number
    that the key is, else a hash of the key.
    """
    image_ids = _Recent()
    caption_ids = _Recent()
    for name, opened in tars:
        with opened as path:
            for sample in _samples(path, name):
                yield from _records(sample, first_id, image_ids, caption_ids, max_caption_bytes)


class _Recent:
    """A set with bounded memory: the oldest members are forgotten."""

    def __init__(self) -> None:
        self._members: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, member: int) -> bool:
        return member in self._members

    def add(self, member: int) -> None:
        self._members[member] = None
        if len(self._members) > _REMEMBERED:
            self._members.popitem(last=False)


def _samples(path: str, name: str) -> Iterator[_Sample]:
    """Consecutive members grouped by key; broken members and a broken end come as samples with a problem."""
    current: _Sample | None = None
    try:
        with open(path, "rb") as file:
            for member in _members(file):
                problem = _member_problem(member)
                if problem:
                    yield _Sample("", f"{name}:{member.name[:200]}", problem=problem)
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
                    current = _Sample(key, f"{name}:{key}")
                _take(current, member, extension.lower(), file, path)
    except _DamagedError as error:
        if current is not None and current.complete:
            yield current
        yield _Sample("", name, problem=f"{error}; what comes before it is used")
        return
    except OSError as error:
        yield _Sample("", name, problem=f"cannot be read: {error.strerror or error}")
        return
    if current is not None:
        yield current


def _members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Members whose bytes are all there; raises `_DamagedError` where the tar ends before its end mark.

    `tarfile` itself takes a cut in a header, or rubbish between members, for the end of the archive.
    """
    size = file.seek(0, 2)
    file.seek(0)
    position = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.size < 0 or member.offset <= position:
                    raise _DamagedError(f"damaged tar at byte {tar.offset}")
                if member.isreg() and member.offset_data + member.size > size:
                    raise _DamagedError(f"truncated tar: {member.name[:200]!r} ends behind the file's {size} bytes")
                position = member.offset
                yield member
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            end = tar.offset
    except (tarfile.TarError, OverflowError, ValueError, EOFError) as error:
        raise _DamagedError(f"not a tar, or truncated ({error or 'empty file'})") from None
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _DamagedError(f"truncated tar: no end mark at byte {end}")
    if block.strip(b"\0"):
        raise _DamagedError(f"damaged tar at byte {end}")


def _member_problem(member: tarfile.TarInfo) -> str | None:
    if member.isdir():
        return None
    if member.issym() or member.islnk():
        return f"a link in a tar (to {member.linkname[:200]!r})"
    if not member.isreg() or member.issparse():
        return "neither a plain file nor a folder in a tar"
    return name_error(member.name)


def _take(sample: _Sample, member: tarfile.TarInfo, extension: str, file: IO[bytes], path: str) -> None:
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


def _records(
    sample: _Sample, first_id: int, image_ids: _Recent, caption_ids: _Recent, max_caption_bytes: int
) -> Iterator[Record]:
    if not sample.key:
        yield Record(sample.origin, error=sample.problem)
        return
    values, error = _description(sample)
    image_id = _image_id(values, sample.key, first_id)
    captions: list[str] = []
    if error is None:
        captions, error = _captions(values, sample.text)
    if error is None and sample.picture is None:
        error = "no picture with this key"
    if error is None and image_id in image_ids:
        error = f"image_id {image_id} was used before"
    if error:
        yield Record(sample.origin, image_id, tuple(text for one in captions for text in shown(one)), error=error)
        return
    image_ids.add(image_id)
    good: list[tuple[int, str]] = []
    broken: list[Record] = []
    for caption_id, text in zip(_caption_ids(values, image_id, len(captions)), captions, strict=True):
        problem = caption_error(text, max_caption_bytes)
        if caption_id in caption_ids:
            problem = f"caption_id {caption_id} was used before"
        if problem:
            broken.append(Record(sample.origin, image_id, shown(text), (caption_id,), error=problem))
            continue
        caption_ids.add(caption_id)
        good.append((caption_id, text.strip()))
    if good:
        yield Record(
            sample.origin,
            image_id,
            tuple(text for _, text in good),
            tuple(number for number, _ in good),
            sample.picture,
        )
    yield from broken


def _description(sample: _Sample) -> tuple[dict[str, object], str | None]:
    """(the sample's JSON, why the sample is refused or None)."""
    if sample.description is None:
        return {}, sample.problem
    try:
        values = json.loads(sample.description)
    except (ValueError, RecursionError) as error:
        return {}, sample.problem or f"its .json is not valid JSON ({type(error).__name__})"
    if not isinstance(values, dict):
        return {}, sample.problem or "its .json is no mapping"
    return values, sample.problem


def _image_id(values: dict[str, object], key: str, first_id: int) -> int:
    given = whole_number(values.get("image_id"))
    if given is not None:
        return given
    for candidate in (values.get("key"), key.rpartition("/")[2]):
        number = whole_number(candidate)
        if number is not None and number < SECOND_RUN:
            return first_id + number
    return stable_id(f"{first_id}/{key}" if first_id else key)


def _captions(values: dict[str, object], text: bytes | None) -> tuple[list[str], str | None]:
    """`captions` of the JSON (as our own shards have them), else the .txt, else `caption` of the JSON."""
    several = values.get("captions")
    if isinstance(several, list) and several and all(isinstance(one, str) for one in several):
        return list(several), None
    if text is not None:
        try:
            return [text.decode("utf-8")], None
        except UnicodeDecodeError as error:
            return [], f"its .txt is not UTF-8 (byte {error.start})"
    one = values.get("caption")
    return ([one], None) if isinstance(one, str) else ([], "no caption: neither .txt nor a caption in .json")


def _caption_ids(values: dict[str, object], image_id: int, count: int) -> list[int]:
    """`caption_ids` of the JSON if they fit; else the image's own id for one caption, hashes for several."""
    given = values.get("caption_ids")
    numbers = [whole_number(one) for one in given] if isinstance(given, list) else []
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers) == count:
        return known
    return [image_id] if count == 1 else [stable_id(f"{image_id}/{number}") for number in range(count)]
