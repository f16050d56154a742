"""Tables of any kind row by row: CSV, TSV, JSON lines and Parquet, each read as a stream, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.data.csv_rows import MAX_FIELD, csv_rows
from zerovl.data.text_heads import refuse_by_head
from zerovl.errors import ZeroVLError
from zerovl.parquet_files import open_parquet

_FIRST_LINES = 100  # of JSON lines, whose keys are the columns
_ROWS, _ROWS_OF_PICTURES = 4096, 32  # of Parquet that are in memory at once
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_MOST_LOST = 1_000_000  # rows of a broken group that the file's end is believed


@dataclass(frozen=True, slots=True)
class TableRow:
    """The values of the wanted columns in one row, or the `problem` for which there are none."""

    number: int  # line of a text file, row of Parquet, from 1
    values: tuple[Any, ...] = ()
    problem: str = ""


class TableFile(Protocol):
    """One file with rows.

    Attributes:
        path: where it lies.
        unit: what a row's number counts: "" for lines, as editors show them, "row " for rows.
    """

    path: Path
    unit: str

    def columns(self) -> list[str]:
        """Return the names of its columns; raises `ZeroVLError` for a file that is no such table."""
        ...

    def holds_pictures(self, column: str) -> bool:
        """Return whether a column has pictures themselves, and not their names."""
        ...

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Give the values of these columns row by row, in their order."""
        ...


class CsvTable:
    """Cells between commas, tabs, semicolons or bars: whichever cuts the header into most names."""

    unit = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._delimiter = max(",\t;|", key=lambda delimiter: len(_header(path, delimiter)))

    def columns(self) -> list[str]:
        """Return the cells of the first row."""
        return _header(self.path, self._delimiter)

    def holds_pictures(self, column: str) -> bool:
        """Return False: a text has names alone."""
        return False

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Give the cells; what cannot be read of a row is its problem."""
        places = [self.columns().index(name) for name in columns]
        for row in islice(csv_rows(self.path, strict=False, delimiter=self._delimiter), 1, None):
            values = () if row.problem else tuple(row.cells[place] for place in places)
            yield TableRow(row.first_line, values, row.problem)


class JsonLines:
    """A mapping a line; what one does not have is None."""

    unit = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def columns(self) -> list[str]:
        """Return the keys of the first lines, in their order."""
        lines = list(islice(self._lines(), _FIRST_LINES))
        names = list(dict.fromkeys(key for _, values, _ in lines for key in values))
        if lines and not names:
            number, _, problem = lines[0]
            raise ZeroVLError(
                f"{self.path}: no mapping of names to values in its first lines (line {number}: {problem or 'empty'}); "
                "write one a line"
            )
        return names

    def holds_pictures(self, column: str) -> bool:
        """Return False: a text has names alone."""
        return False

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Give the values; a line that is not a mapping is a problem."""
        for number, values, problem in self._lines():
            yield TableRow(number, () if problem else tuple(values.get(name) for name in columns), problem)

    def _lines(self) -> Iterator[tuple[int, dict[str, Any], str]]:
        """Give (number, mapping, problem) of each line that is not empty."""
        with _explained(self.path), open(self.path, "rb") as file:
            number = 0
            while line := file.readline(MAX_FIELD):
                number += 1
                if len(line) >= MAX_FIELD and not line.endswith(b"\n"):
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_FIELD)
                    yield number, {}, f"line longer than {MAX_FIELD} bytes"
                elif line.strip(b" \t\r\n\xef\xbb\xbf"):
                    yield number, *_mapping(line)


class ParquetTable:
    """The columns of a Parquet file; pictures lie in it as bytes, or as Hugging Face's `{bytes, path}`."""

    unit = "row "

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path), open_parquet(path) as file:
            self._schema = file.schema_arrow

    def columns(self) -> list[str]:
        """Return the names of the schema."""
        return list(self._schema.names)

    def holds_pictures(self, column: str) -> bool:
        """Return whether a column has bytes, or mappings that may have them."""
        kind = self._schema.field(column).type
        if pa.types.is_dictionary(kind):  # as pandas has categories
            kind = kind.value_type
        return pa.types.is_struct(kind) or any(is_of(kind) for is_of in _BYTES)

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Give the values; of a row group that is broken, each row that it should still have had is a problem."""
        at_once = _ROWS_OF_PICTURES if any(self.holds_pictures(name) for name in columns) else _ROWS
        with _explained(self.path), open_parquet(self.path) as file:
            first = 1
            for group in range(file.num_row_groups):
                total = file.metadata.row_group(group).num_rows
                yield from _group_rows(file, group, columns, at_once, range(first, first + total))
                first += total


def _group_rows(
    file: pq.ParquetFile, group: int, columns: Sequence[str], at_once: int, numbers: range
) -> Iterator[TableRow]:
    """Give the rows of a group, numbered as said."""
    given = 0
    try:
        for batch in file.iter_batches(at_once, row_groups=[group], columns=list(columns), use_threads=False):
            for values in zip(*(_values(batch.column(name)) for name in columns), strict=True):
                yield TableRow(numbers[given], values)
                given += 1
    except (pa.ArrowException, OSError) as error:
        lost = numbers[given : given + _MOST_LOST]
        for number in lost:
            yield TableRow(number, problem=f"damaged Parquet ({_first_line(error)}), {len(lost)} rows are lost")


KINDS: dict[str, Callable[[Path], TableFile]] = {
    ".parquet": ParquetTable,
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".jsonl": JsonLines,
}


def open_table(path: Path) -> TableFile:
    """Return a table by its ending, one of `KINDS`; raises `ZeroVLError` for what is none by its first bytes."""
    with _explained(path):
        refuse_by_head(path)
    return KINDS[path.suffix.lower()](path)


def is_table(path: Path) -> bool:
    """Return whether a file's name has the ending of a table."""
    return path.suffix.lower() in KINDS and path.is_file()


def _header(path: Path, delimiter: str) -> list[str]:
    first = next(csv_rows(path, strict=False, delimiter=delimiter), None)
    return [name.strip() for name in first.cells] if first else []


def _mapping(line: bytes) -> tuple[dict[str, Any], str]:
    """(values of a line, why there are none or "")."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 (byte {error.start} of the line)"
    except (ValueError, RecursionError) as error:
        return {}, f"not valid JSON ({type(error).__name__})"
    return (values, "") if isinstance(values, dict) else ({}, "not a mapping of names to values")


def _values(column: pa.Array) -> list[Any]:
    """Return a column's values; a text that is not UTF-8 keeps its bytes as lone surrogates, for whoever checks it."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_text(value) for value in column]
    return values


def _text(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        buffer = value.as_buffer() if hasattr(value, "as_buffer") else None
        return buffer.to_pybytes().decode("utf-8", "surrogateescape") if buffer else None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a file as a whole is refused for into one line."""
    try:
        yield
    except pa.ArrowException as error:
        raise ZeroVLError(f"{path}: not a Parquet file, or cut short ({_first_line(error)}); fetch it again") from None
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise ZeroVLError(f"{path}: cannot be read ({reason}); check the file and its rights") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
