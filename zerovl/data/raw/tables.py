"""Tables with a row a caption: Parquet, CSV, TSV or JSON lines, with columns of any name.

open_clip's `filepath,title`, Hugging Face's exports with pictures as bytes, and what people write by hand.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.file_names import differing_notes
from zerovl.data.raw.layout import SPLITS, Source
from zerovl.data.raw.records import Reading, Record, is_debris
from zerovl.data.raw.split_names import TRAIN, chosen_names, split_named
from zerovl.data.raw.table_columns import Columns, choose_columns
from zerovl.data.raw.table_files import KINDS, TableFile, is_table, open_table
from zerovl.data.raw.table_records import Part, TableRecords
from zerovl.data.raw.unread_files import is_other_table, say_unread, unpacked_name
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.text_format import plural

_WHOLE = "pairs"  # stem of a table with all splits
_LISTS = ("['", '["')  # begin of a list that was written as text
_LOOKED_AT = 20  # tables with other names, of which it is asked whether they have pairs
_BELOW = "data"  # folder in which Hugging Face's repositories have their tables


@dataclass(frozen=True)
class SplitTable:
    """One table of a source, and which splits its rows are of."""

    table: TableFile
    columns: Columns
    rows: Mapping[str, int | None]  # by split; None: all of them, uncounted
    split_of: Callable[[Any], str] | None  # of a value in the column `split`; None: all rows are of one split
    prefix: str  # of names, so that those of several tables differ
    pictures: Path | None = None  # folder that names are relative to; None: that of the source, or the table's

    @property
    def splits(self) -> frozenset[str]:
        """Names of the splits that its rows are of."""
        return frozenset(self.rows)


class Tables:
    """The `Layout` of sources with tables: one or more a split, or one with a column `split`."""

    name = "table"
    signs = "train, valid or pairs as .parquet, .csv, .tsv or .jsonl"
    remote = False
    uses = frozenset({"evaluation_split", "table", "columns", "pictures"})

    def detect(self, folder: Path) -> bool:
        """Return whether there is a table with the name of a split, or `pairs`."""
        return bool(_usual_files(folder))

    def splits(self, source: Source) -> list[str]:
        """Return the splits that tables, or rows of them, belong to; warns of tables that are not read."""
        say_unread(source.name, _unread(source), ", ".join(KINDS))
        if others := _other_tables(source):
            logger().warning(
                f"source {source.name!r}: {', '.join(others)} {'has' if len(others) == 1 else 'have'} pairs too, and "
                f"{'is' if len(others) == 1 else 'are'} not read; name what is read in data.sources, as in table: "
                f"'*{Path(others[0]).suffix}'"
            )
        return present_splits(_tables(source), source)

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Give the pictures of one split, table by table in the order of their names."""
        return read_tables(_tables(source), source, split, max_caption_bytes, fetched)


def present_splits(tables: list[SplitTable], source: Source) -> list[str]:
    """Return which of `SPLITS` the rows of tables belong to."""
    chosen = chosen_names(_names(tables), source.evaluated)
    return [split for split in SPLITS if split in chosen]


def read_tables(
    tables: list[SplitTable], source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles
) -> Reading:
    """Return the pictures of one split; notes say what is taken for what, and which splits are left out."""
    chosen = chosen_names(_names(tables), source.evaluated)
    parts = [_part(each, source, split, chosen[split]) for each in tables if each.splits & chosen[split]]
    notes = [f"{part.table.path.name}: {part.columns.said}" for part in parts[:1]]
    if split == source.splits[-1]:  # once a source
        notes += _left_out(tables, _names(tables).difference(*chosen.values()))
    records = TableRecords(parts, f"{source.name}-{split}", max_caption_bytes, fetched)
    without_ids = not any(part.columns.image_id for part in parts)
    return Reading(_noting(records, notes), notes=notes, without_ids=without_ids)


def _left_out(tables: list[SplitTable], names: frozenset[str]) -> list[str]:
    """Say which splits neither of ours takes, with their rows where these say it themselves."""
    counts = {name: sum(each.rows.get(name) or 0 for each in tables) for name in sorted(names)}
    return [
        f"{plural(count, 'row')} of split {name!r} left out" if count else f"split {name!r} left out"
        for name, count in counts.items()
    ]


def _noting(records: TableRecords, notes: list[str]) -> Iterator[Record]:
    """Give the records; what is known only at their end joins the notes then."""
    lists = 0
    for record in records:
        lists += sum(text.startswith(_LISTS) and text.endswith("]") for text in record.captions)
        yield record
    if lists:
        said = f'{plural(lists, "caption")} in brackets, as ["one", "two"], read as one each'
        notes.append(f"{said}: a CSV has no lists, so write a row a caption, or lists in Parquet or JSON lines")
    notes += differing_notes(records.differing)


def _names(tables: list[SplitTable]) -> frozenset[str]:
    return frozenset(name for each in tables for name in each.splits)


def _part(each: SplitTable, source: Source, split: str, names: frozenset[str]) -> Part:
    folder = each.pictures or pictures_folder(source, each.table.path.parent)
    place = os.path.relpath(each.table.path, source.path)
    if each.split_of is None:
        return Part(each.table, each.columns, place, folder, each.prefix)
    split_of = each.split_of
    counts_problems = split == source.splits[0]  # rows that cannot be read say no split, and count once
    return Part(
        each.table, each.columns, place, folder, each.prefix, lambda value: split_of(value) in names, counts_problems
    )


def pictures_folder(source: Source, beside: Path) -> Path:
    """Return the folder that names of pictures are relative to: `pictures` of the source, else the table's own.

    Raises `ZeroVLError` where it is not there.
    """
    folder = Path(source.path, source.pictures) if source.pictures else beside
    if not folder.is_dir():
        raise ZeroVLError(
            f"source {source.name!r}: pictures: {source.pictures}: no such folder ({folder}); give one that is there, "
            "absolute or relative to the source"
        )
    return Path(os.path.abspath(folder))


def _usual_files(folder: Path) -> list[Path]:
    """Return the tables that are known by their names, in the folder itself or in its `data`."""
    return [path for below in _places(folder) for path in sorted(filter(_is_usual, below.iterdir()))]


def _places(folder: Path) -> list[Path]:
    return [below for below in (folder, folder / _BELOW) if below.is_dir()]


def _is_usual(path: Path) -> bool:
    return is_table(path) and _is_usual_name(path.name)


def _is_usual_name(name: str) -> bool:
    return Path(name).stem == _WHOLE or bool(split_named(name))


def _other_tables(source: Source) -> list[str]:
    """Return the names of tables beside those of a source that have its columns and names that say nothing."""
    if source.table:
        return []
    folder = Path(source.path)
    tables = sorted(path for path in folder.iterdir() if is_table(path) and not is_debris(path.name))
    unknown = [path for path in tables if not _is_usual_name(path.name)][:_LOOKED_AT]
    return [path.name for path in unknown if _has_pairs(path, source)]


def _has_pairs(path: Path, source: Source) -> bool:
    try:
        return bool(choose_columns(open_table(path), source.columns))
    except ZeroVLError:
        return False


def _unread(source: Source) -> list[str]:
    """Return the names of files that would be tables of a source if they were unpacked, or of another kind."""
    folder = Path(source.path)
    if source.table:
        found = {*_matching(folder, source.table), *_matching(folder, f"{source.table}.*")}
    else:
        found = {path for place in _places(folder) for path in place.iterdir() if _is_usual_name(path.name)}
    read = {path.with_suffix("") for path in found if is_table(path)}  # a copy of one of these is not missed
    unread = (path for path in found if not is_table(path) and not _is_debris(path, folder) and not read & _stems(path))
    names = sorted(path.relative_to(folder).as_posix() for path in unread)
    return [name for name in names if Path(unpacked_name(name)).suffix.lower() in KINDS or is_other_table(name)]


def _stems(path: Path) -> set[Path]:
    """Return a path without its ending, and without that of what is compressed in it."""
    return {path.with_suffix(""), path.with_suffix("").with_suffix("")}


def _tables(source: Source) -> list[SplitTable]:
    folder = Path(source.path)
    if source.table:
        files = [path for path in _matching(folder, source.table) if is_table(path) and not _is_debris(path, folder)]
    else:
        files = _usual_files(folder)
        _refuse_copies(files, source)
    if not files:
        looked = f"no table {source.table!r}" if source.table else f"no table ({Tables.signs})"
        raise ZeroVLError(
            f"source {source.name!r}: {source.path}: {looked}; put one there, or name it in data.sources, as in "
            f"table: my_pairs.csv (endings: {', '.join(KINDS)})"
        )
    return [_split_table(path, source) for path in files]


def _matching(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except (NotImplementedError, ValueError):
        return []  # absolute, or no pattern at all


def _is_debris(path: Path, folder: Path) -> bool:
    """Return whether a file below `folder` is none of the user's, as those in `.ipynb_checkpoints`."""
    return any(is_debris(part) for part in path.relative_to(folder).parts if part != "..")


def _refuse_copies(files: list[Path], source: Source) -> None:
    """Raise `ZeroVLError` where tables differ by their ending alone: all pairs would be read twice."""
    seen: dict[Path, Path] = {}
    for file in files:
        other = seen.setdefault(file.with_suffix(""), file)
        if other != file:
            raise ZeroVLError(
                f"source {source.name!r}: {file.parent} has {other.name} and {file.name}; keep one of them, or name "
                f"what is read in data.sources, as in table: {file.name}"
            )


def _split_table(path: Path, source: Source) -> SplitTable:
    table = open_table(path)
    columns = choose_columns(table, source.columns)
    prefix = relative_prefix(path.parent, source)
    # The source's own folder says nothing: one that is called `test` may hold anything.
    above = "" if path.parent == Path(source.path) else path.parent.name
    if name := split_named(path.name) or split_named(above):
        return SplitTable(table, columns, {name: None}, None, prefix)
    if not columns.split:
        return SplitTable(table, columns, {TRAIN[0]: None}, None, prefix)
    return split_by_rows(table, columns, lowered, prefix)


def split_by_rows(table: TableFile, columns: Columns, split_of: Callable[[Any], str], prefix: str) -> SplitTable:
    """Return a table with the splits that its rows say in the column `split`."""
    found = Counter(split_of(row.values[0]) for row in table.rows([columns.split]) if not row.problem)
    return SplitTable(table, columns, found, split_of, prefix)


def relative_prefix(folder: Path, source: Source) -> str:
    """Return what names relative to `folder` begin with, seen from the source; "" for the source's own folder."""
    inner = folder.relative_to(source.path).as_posix()
    return "" if source.pictures or inner == "." else f"{inner}/"


def lowered(value: Any) -> str:
    """Return a split's name as a row has it, in small letters."""
    return str(value).strip().lower()
