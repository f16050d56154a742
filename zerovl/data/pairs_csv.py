"""Rows of a CSV of pairs: the one reader for `zerovl prepare`, which quarantines, and `zerovl embed`, which lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zerovl.data.csv_rows import CsvRow, csv_rows, shown_columns
from zerovl.errors import ZeroVLError

COLUMNS = ("image", "image_id", "caption", "caption_id")


@dataclass(frozen=True, slots=True)
class PairRow:
    """One row of the file; `problem` says why it has no values, else it is empty."""

    first_line: int
    last_line: int
    image: str = ""
    image_id: str = ""
    caption: str = ""
    caption_id: str = ""
    problem: str = ""

    @property
    def lines(self) -> str:
        """Lines of the file that the row takes: "7", or "7-9" where a caption has line breaks."""
        return CsvRow(self.first_line, self.last_line).lines


def read_rows(path: Path, strict: bool) -> Iterator[PairRow]:
    """Give the rows of a CSV that has `COLUMNS`, in any order and among others; empty lines are left out.

    Raises `ZeroVLError` where the file as a whole cannot be read: columns, encoding, quoting if `strict`. Where it is
    not `strict`, quotes in odd places are taken as they stand.
    """
    rows = csv_rows(path, strict)
    header = [name.strip() for name in next(rows, CsvRow(0, 0)).cells]
    if missing := [name for name in COLUMNS if name not in header]:
        raise ZeroVLError(
            f"{path}: no column {', '.join(missing)}; found {shown_columns(header)}; "
            f"expected {', '.join(COLUMNS)} in the first line"
        )
    places = [header.index(name) for name in COLUMNS]
    for row in rows:
        if row.problem:
            yield PairRow(row.first_line, row.last_line, problem=row.problem)
        else:
            yield PairRow(row.first_line, row.last_line, *(row.cells[place] for place in places))
