"""Rows of a CSV as a stream, each with the lines that it takes; one broken row does not end the file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from zerovl.data.text_heads import refuse_by_head
from zerovl.errors import ZeroVLError

MAX_FIELD = 16 << 20  # characters; Python's own limit is 131,072: a long caption is a broken row, not the end of a file
_MOST_LOST = 100_000  # lines of one row that are counted one by one
_MOST_COLUMNS, _NAME = 40, 100  # columns, and characters of a name, in a message
_MOST_LINES = 200  # of one row; beyond them a quote was not closed
_OPEN_QUOTE = "unexpected end of data"  # what Python's reader says where a quote does not close


@dataclass(frozen=True, slots=True)
class CsvRow:
    """The cells of a row, none where a `problem` says why."""

    first_line: int
    last_line: int
    cells: tuple[str, ...] = ()
    problem: str = ""

    @property
    def lines(self) -> str:
        """Lines of the file that the row takes: "7", or "7-9" where a caption has line breaks."""
        return str(self.first_line) + (f"-{self.last_line}" if self.last_line > self.first_line else "")


def csv_rows(path: Path, strict: bool, delimiter: str = ",") -> Iterator[CsvRow]:
    """Give the rows of a CSV, the header as the first of them; empty lines are left out.

    A row with fewer cells than the header is a problem, and one with more, but for empty ones at its end: a comma
    within a caption that is not quoted cuts it, and whether the rest belongs to it the row does not say. Where a quote
    that is not closed has swallowed further rows, each of their lines is a problem. Blanks before a quote are left
    out where the cell is then quoted well. Where it is not `strict`, quotes in odd places are taken as they stand.
    Raises `ZeroVLError` where the file as a whole cannot be read: encoding, a line without end, quoting if `strict`.
    """
    csv.field_size_limit(MAX_FIELD)
    number = 0  # of the last line
    try:
        refuse_by_head(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = _Lines(file)
            reader = csv.reader(lines, strict=strict, delimiter=delimiter)
            width = 0
            while True:
                lines.taken.clear()
                first = number + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    number = lines.number
                    if strict:
                        raise
                    yield from _lost(first, number, f"not valid CSV ({error})")
                    continue
                if cells is not None:
                    cells = _fitting(_without_blanks(cells, lines, width, delimiter), width)
                number = lines.number
                if cells is None:
                    return
                if not cells:
                    continue
                width = width or len(cells)
                unclosed = lines.ended and _ends_in_a_quote(lines.taken, delimiter)
                yield from _rows(first, number, cells, width, unclosed)
    except UnicodeDecodeError:
        raise ZeroVLError(_encoding_message(path)) from None
    except csv.Error as error:
        raise ZeroVLError(f"{path}: line {number}: not valid CSV ({error}); fix the row there") from None
    except _EndlessLineError:
        raise ZeroVLError(
            f"{path}: line {number + 1}: longer than {MAX_FIELD} characters; a CSV has a line for each row"
        ) from None
    except OSError as error:
        raise ZeroVLError(f"{path}: cannot be read ({error.strerror}); check the file and its rights") from None


def shown_columns(names: list[str]) -> str:
    """Return names of columns for a message of one line: "image, caption"; "nothing" where there are none."""
    shown = [name[:_NAME] if name[:_NAME].isprintable() else ascii(name[:_NAME]) for name in names[:_MOST_COLUMNS]]
    rest = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
    return ", ".join(shown) + rest or "nothing"


class _EndlessLineError(Exception):
    """Says that a line is longer than any row can be."""


class _Lines:
    """Lines of a file, those of the present row kept.

    Attributes:
        taken: of the present row.
        number: of the last one that was taken, from 1.
        ended: whether one was asked for behind the last.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._returned: list[str] = []  # the next one last
        self.taken: list[str] = []
        self.number = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._returned.pop() if self._returned else self._file.readline(MAX_FIELD)
        if len(line) >= MAX_FIELD:
            raise _EndlessLineError
        if not line:
            self.ended = True
            raise StopIteration
        self.taken.append(line)
        self.number += 1
        return line

    def give_back(self, count: int) -> None:
        """Let the last lines that were taken come again."""
        for _ in range(count):
            self._returned.append(self.taken.pop())
            self.number -= 1
        self.ended &= not count


def _rows(first: int, last: int, cells: list[str], width: int, unclosed: bool) -> Iterator[CsvRow]:
    """Give the row if it is whole, else what is lost."""
    if unclosed or last - first >= _MOST_LINES:
        yield from _lost(first, last, f"a quote that opens in line {first} or after is not closed")
    elif len(cells) != width:
        fix = "; put a cell with a separator in it in quotes" if len(cells) > width else ""
        yield from _lost(first, last, f"row has {len(cells)} cells, the header has {width}{fix}")
    else:
        yield CsvRow(first, last, tuple(cells))


def _fitting(cells: list[str], width: int) -> list[str]:
    """Return the cells without the empty ones beyond the header's, as spreadsheets add them."""
    return cells[:width] if width and not "".join(cells[width:]).strip() else cells


def _without_blanks(cells: list[str], lines: _Lines, width: int, delimiter: str) -> list[str]:
    """Return the cells of a row with those as quoted that have blanks before their quote: `0.jpg, "a dog, asleep"`.

    Python's `skipinitialspace` for the whole file would also strip cells without quotes, and take a quote that only
    begins a caption for one that opens a cell, so a row is read again where it has such a place, and only if it fits.
    Where the quote does not close in its line the row goes on up to the line in which it does.
    """
    if not any(' "' in line and re.search(f'(?:^|{re.escape(delimiter)}) +"', line) for line in lines.taken):
        return cells
    again, more = _read_again(lines.taken, delimiter), 0
    while again is None and width and more < _MOST_LINES and (line := next(lines, None)) is not None:
        more += 1
        if _is_a_row(line, width, delimiter):  # what looks like a row of its own is not taken for a part of another
            break
        if '"' in line:
            again = _read_again(lines.taken, delimiter)
    if not again or (width and len(_fitting(again, width)) != width):
        lines.give_back(more)
        return cells
    if more or len(again) != len(cells):
        return again
    return [old if old.lstrip(" ") == new else new for old, new in zip(cells, again, strict=True)]


def _read_again(lines: list[str], delimiter: str) -> list[str] | None:
    """Return the cells of a row without blanks before quotes; none where it is no row, None where a quote is open."""
    try:
        rows = list(csv.reader(lines, strict=True, skipinitialspace=True, delimiter=delimiter))
    except csv.Error as error:
        return None if _OPEN_QUOTE in str(error) else []
    return rows[0] if len(rows) == 1 else []


def _is_a_row(line: str, width: int, delimiter: str) -> bool:
    """Return whether a line by itself is a row of this many cells, with all of its quotes closed."""
    if line.count('"') % 2:
        return False
    cells = _read_again([line], delimiter)
    return bool(cells and len(_fitting(cells, width)) == width)


def _lost(first: int, last: int, problem: str) -> Iterator[CsvRow]:
    """Give a problem for each line: what was read as one row may have been as many."""
    end = min(max(first, last), first + _MOST_LOST - 1)
    more = f"; lines {end + 1}-{last} are lost too" if end < last else ""
    for line in range(first, end + 1):
        yield CsvRow(line, line, problem=problem + more)


def _ends_in_a_quote(lines: list[str], delimiter: str) -> bool:
    """Return whether the last row of a file lacks its closing quote, which a reader that is not strict does not say."""
    try:
        list(csv.reader(lines, strict=True, delimiter=delimiter))
    except csv.Error as error:
        return _OPEN_QUOTE in str(error)
    return False


def _encoding_message(path: Path) -> str:
    """Return line and byte of the first place that is not UTF-8; the text decoder only knows its own buffer."""
    start = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                value = line[error.start]
                return (
                    f"{path}: line {number}, byte {start + error.start} (0x{value:02x}): not UTF-8; "
                    f"save it as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > fixed.csv"
                )
            start += len(line)
    return f"{path}: not UTF-8; save it as UTF-8"
