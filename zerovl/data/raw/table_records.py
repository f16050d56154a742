"""Rows of tables to records: one a picture, with the captions of all of its rows.

A row's picture is known by its `image_id` column, else by its file name; a picture that lies in the table itself,
without an id, is one of its own. The rows of a picture may lie anywhere. The keys are read first, 8 bytes a row:
pictures whose rows lie together are given as soon as they end, and only the captions of the others wait in memory.
`tests/data/raw/test_table_grouping.py` has the plain way, all rows in memory, that this agrees with.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.file_names import FileNames
from zerovl.data.raw.records import Picture, Record, caption_error, name_error, shown, stable_id, whole_number
from zerovl.data.raw.table_columns import Columns
from zerovl.data.raw.table_files import TableFile, TableRow

_BASE64 = ("/9j/4", "iVBORw0KGgo", "data:image/")  # how JPEGs and PNGs begin as base64, and addresses with data
_HELD_BYTES, _HELD_ROWS = 64 << 20, 1024  # of a table's own pictures that are put into one file


@dataclass(frozen=True)
class Part:
    """One table, and which of its rows are read."""

    table: TableFile
    columns: Columns
    place: str  # of the table within the source: "data/train.parquet"
    pictures: Path  # folder that names of pictures are relative to
    prefix: str  # of a name, so that names of several tables differ: the folder within the source, or ""
    wanted: Callable[[Any], bool] | None = None  # of a value in the column `split`; None: all rows
    counts_problems: bool = True  # whether rows that cannot be read are counted here

    @property
    def holds_pictures(self) -> bool:
        """Whether the pictures lie in the table itself."""
        return self.table.holds_pictures(self.columns.image)

    def rows(self, *columns: str) -> Iterator[TableRow]:
        """Give the wanted rows with the values of these columns, and the rows that cannot be read."""
        if self.wanted is None:
            yield from self.table.rows(columns)
            return
        for row in self.table.rows([*columns, self.columns.split]):
            if row.problem:
                yield from [row] if self.counts_problems else []
            elif self.wanted(row.values[-1]):
                yield TableRow(row.number, row.values[:-1])

    def relative(self, name: str) -> str:
        """Return the name of a picture as seen from the folder of the pictures, where it lies below it."""
        return name.removeprefix(f"{self.pictures}/").removeprefix("./")

    def origin(self, row: TableRow) -> str:
        """Return where a row stands: "pairs.csv:7"."""
        return f"{self.place}:{self.table.unit}{row.number}"


@dataclass(slots=True)
class _Picture:
    """A picture, or the reason why there is none, of one row."""

    name: str  # as messages have it
    identity: object  # equal for rows of the same picture
    picture: Picture | None = None
    error: str | None = None
    differs: str = ""


@dataclass(slots=True)
class _Group:
    """A picture with the captions that are known so far."""

    image_id: int
    origin: str
    first: _Picture
    captions: list[str] = field(default_factory=list)


class TableRecords:
    """The records of one split of a source whose pairs stand in tables.

    Attributes:
        differing: pictures so far by what their files' names differ in from the table's (`file_names.Found`).
    """

    def __init__(self, parts: list[Part], name: str, max_caption_bytes: int, fetched: FetchedFiles) -> None:
        self.differing = Counter[str]()
        self._parts = parts
        self._name = name
        self._max_caption_bytes = max_caption_bytes
        self._fetched = fetched
        self._stored = 0  # files of pictures that lay in tables
        self._files: dict[Path, FileNames] = {}

    def __iter__(self) -> Iterator[Record]:
        """Give each picture once its last row is read, and what is broken in its place."""
        outstanding = _scattered(self._parts)  # key -> rows that are still to come
        waiting: dict[int, _Group] = {}
        current: _Group | None = None
        for part in self._parts:
            for row, found in self._pictures(part):
                problem = row.problem or _key_problem(part, row)
                if problem or found is None:
                    yield Record(part.origin(row), error=problem)
                    continue
                key = _image_id(part, row)
                if current and current.image_id != key:
                    yield from self._whole(current)
                    current = None
                group = waiting.get(key) or current or self._begin(key, part, row, found)
                yield from self._add(group, part, row, found)
                if key not in outstanding:
                    current = group
                    continue
                waiting[key] = group
                outstanding[key] -= 1
                if not outstanding[key]:
                    yield from self._whole(waiting.pop(key))
        for group in [*([current] if current else []), *waiting.values()]:  # these wait for rows that were lost
            yield from self._whole(group)

    def _begin(self, image_id: int, part: Part, row: TableRow, found: _Picture) -> _Group:
        if found.picture:
            self._fetched.hold(found.picture.path)
        self.differing[found.differs] += 1
        origin = part.origin(row) if part.holds_pictures else f"{found.name[:200]} ({part.origin(row)})"
        return _Group(image_id, origin, found)

    def _add(self, group: _Group, part: Part, row: TableRow, found: _Picture) -> Iterator[Record]:
        """Put a row's captions into its group; gives those that are broken."""
        captions = row.values[1]
        for caption in (captions or [None]) if isinstance(captions, list) else [captions]:
            text = caption if isinstance(caption, str) else ""
            problem = caption_error(text, self._max_caption_bytes)
            if caption is not None and not isinstance(caption, str):
                problem = f"caption of type {type(caption).__name__}, not a text"
            if found.identity != group.first.identity:
                key = f"{part.columns.image_id} {row.values[2]!r}" if part.columns.image_id else "this name"
                problem = f"{key} already belongs to {group.first.name[:200]}, here it has {found.name[:200]}"
            if problem:
                yield Record(part.origin(row), group.image_id, shown(text), error=problem)
            else:
                group.captions.append(text.strip())

    def _whole(self, group: _Group) -> Iterator[Record]:
        """Give the record of a group; nothing where each of its captions was a broken record of its own."""
        count = len(group.captions)
        ids = [group.image_id] if count == 1 else [stable_id(f"{group.image_id}/{number}") for number in range(count)]
        first = group.first
        if count:
            yield Record(group.origin, group.image_id, tuple(group.captions), tuple(ids), first.picture, first.error)
        if first.picture:
            self._fetched.release(first.picture.path)

    def _pictures(self, part: Part) -> Iterator[tuple[TableRow, _Picture | None]]:
        """Give each row with its picture; pictures of the table itself are put into files for those who pack them."""
        columns = part.columns
        wanted = (columns.image, columns.caption, *([columns.image_id] if columns.image_id else []))
        for batch in _batches(part.rows(*wanted)):
            contents = [_content(row) for row in batch]
            if not any(contents):
                yield from ((row, None if row.problem else self._named(part, row)) for row in batch)
                continue
            self._stored += 1
            name = f"{self._name}-{self._stored}.pictures"
            with self._fetched.fetched(name, partial(_write, contents=contents)) as path:
                offset = 0
                for row, content in zip(batch, contents, strict=True):
                    if content is None:
                        yield row, None if row.problem else self._named(part, row)
                        continue
                    digest = hashlib.sha256(content).digest()
                    yield row, _Picture(part.origin(row), digest, Picture(path, offset, len(content)))
                    offset += len(content)

    def _named(self, part: Part, row: TableRow) -> _Picture:
        """Return the picture that a row has the name of."""
        value = _name(row)
        if problem := _name_problem(value):
            return _Picture("no picture", None, error=problem)
        if value.startswith(("http://", "https://")):
            return _Picture(value, value, error="a web address; fetch the pictures first, for example with img2dataset")
        if value.startswith(_BASE64):
            problem = "a picture as base64 text; write its bytes into Parquet, or a file"
            return _Picture("base64 text", value, error=problem)
        name = part.relative(value)
        error = name_error(name)
        if error and Path(value).is_absolute():
            error += f", which is not below {part.pictures}; name its folder in data.sources: pictures"
        if error:
            return _Picture(value, value, error=error)
        found = self._files.setdefault(part.pictures, FileNames(part.pictures)).find(name)
        picture = None if found.problem else Picture(found.path)
        return _Picture(f"{part.prefix}{name}", name, picture, found.problem, found.differs)


def _batches(rows: Iterable[TableRow]) -> Iterator[list[TableRow]]:
    """Give rows in lots whose pictures take a bounded number of bytes."""
    batch: list[TableRow] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += len(_content(row) or b"")
        if held >= _HELD_BYTES or len(batch) >= _HELD_ROWS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _content(row: TableRow) -> bytes | None:
    """Return the bytes of a picture that lies in the row itself; None for a name, or nothing at all."""
    value = row.values[0] if row.values else None
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) and value else None


def _name(row: TableRow) -> Any:
    """Return what a row has in the place of a picture's name."""
    value = row.values[0]
    return value.get("path") if isinstance(value, dict) else value


def _name_problem(value: Any) -> str:
    """Return why a value is no name of a picture; "" where it is one."""
    if isinstance(value, str):
        return "" if value.strip() else "no picture"
    return f"picture of type {type(value).__name__}, neither a name nor bytes" if value else "no picture"


def _write(path: Path, contents: Iterable[bytes | None]) -> None:
    with open(path, "wb") as file:
        file.writelines(content for content in contents if content)


def _image_id(part: Part, row: TableRow) -> int:
    """Return the id of a row's picture, which is also what all of its rows have in common."""
    if part.columns.image_id:
        value = row.values[2]
        whole = (
            int(value) if isinstance(value, float) and value.is_integer() else value
        )  # as pandas has ids beside gaps
        number = whole_number(whole)
        return stable_id(f"id/{value}") if number is None else number
    own = part.origin(row) if part.holds_pictures else f"{part.prefix}{part.relative(str(row.values[0]))}"
    return stable_id(own)


def _key_problem(part: Part, row: TableRow) -> str:
    """Return why a row has nothing that its picture is known by: such rows are no picture that they share."""
    if row.problem:
        return ""
    if not part.columns.image_id:
        return "" if part.holds_pictures else _name_problem(_name(row))
    value = row.values[2]
    nothing = not value.strip() if isinstance(value, str) else value is None or value != value  # NaN is not itself
    return f"no {part.columns.image_id}" if nothing else ""


def _scattered(parts: list[Part]) -> dict[int, int]:
    """Return the keys whose rows do not lie together, each with its number of rows."""
    keys = np.fromiter(_keys(parts), np.uint64)  # (rows,)
    order = np.argsort(keys, kind="stable")  # rows of one key together, first to last
    grouped = keys[order]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]]) if len(keys) else np.empty(0, np.int64)
    ends = np.r_[starts[1:], len(keys)] - 1 if len(keys) else starts
    apart = order[ends] - order[starts] != ends - starts
    return dict(zip(grouped[starts[apart]].tolist(), (ends - starts + 1)[apart].tolist(), strict=True))


def _keys(parts: list[Part]) -> Iterator[int]:
    """Give the key of each row that has one; pictures that lie in a table and have no ids are not read for it."""
    for part in parts:
        if part.holds_pictures and not part.columns.image_id:
            continue
        for row in part.rows(part.columns.image_id or part.columns.image):
            if row.problem:
                continue
            whole = TableRow(row.number, (row.values[0], None, row.values[0]))
            if not _key_problem(part, whole):
                yield _image_id(part, whole)
