"""The pairs of a CSV that can be embedded, and the rows that cannot, with their reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zerovl.data.pairs_csv import COLUMNS, PairRow, read_rows

_BITS = 64  # of an id in the files that are written


@dataclass(frozen=True)
class Pair:
    """One caption of a picture."""

    lines: str  # of the CSV, as "7" or "7-9"
    image: str
    image_id: int
    caption: str
    caption_id: int


@dataclass(frozen=True)
class LeftOut:
    """A row of the CSV that has no embeddings."""

    lines: str
    image: str
    reason: str


def each_row(path: Path) -> Iterator[Pair | LeftOut]:
    """Give what each row of a CSV is, one after the other; raises `ZeroVLError` where it cannot be read as a whole."""
    return (_pair(row) for row in read_rows(path, strict=True))


def _pair(row: PairRow) -> Pair | LeftOut:
    if row.problem:
        return LeftOut(row.lines, "", row.problem)
    numbers = {}
    for name in COLUMNS:
        value: str = getattr(row, name)
        if not value.strip():
            return LeftOut(row.lines, row.image, f"{name} is empty")
        if name.endswith("_id"):
            try:
                numbers[name] = int(value)
            except ValueError:
                return LeftOut(row.lines, row.image, f"{name} is {value!r}, expected an integer")
            if not -(2 ** (_BITS - 1)) <= numbers[name] < 2 ** (_BITS - 1):
                return LeftOut(row.lines, row.image, f"{name} is {value!r}, expected an integer of {_BITS} bits")
    return Pair(row.lines, row.image, numbers["image_id"], row.caption, numbers["caption_id"])
