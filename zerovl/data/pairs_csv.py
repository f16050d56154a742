"""Rows of a CSV of pairs: the one reader for `zerovl prepare`, which quarantines, and `zerovl embed`, which lists."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zerovl.errors import ZeroVLError

COLUMNS = ("image", "image_id", "caption", "caption_id")
_MAX_FIELD = 1 << 30  # characters; Python's own limit is 131,072: a long caption is a broken row, not the end of a file


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
        return str(self.first_line) + (f"-{self.last_line}" if self.last_line > self.first_line else "")


def read_rows(path: Path, strict: bool) -> Iterator[PairRow]:
    """Give the rows of a CSV that has `COLUMNS`, in any order and among others; empty lines are left out.

    Raises `ZeroVLError` where the file as a whole cannot be read: columns, encoding, quoting. Where it is not
    `strict`, quotes in odd places are taken as they stand.
    """
    csv.field_size_limit(_MAX_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=strict)
            header = [name.strip() for name in next(reader, [])]
            if missing := [name for name in COLUMNS if name not in header]:
                raise ZeroVLError(
                    f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}; "
                    f"expected {', '.join(COLUMNS)} in the first line"
                )
            places = [header.index(name) for name in COLUMNS]
            first = reader.line_num + 1
            for cells in reader:
                lines = first, reader.line_num
                first = reader.line_num + 1
                if 0 < len(cells) < len(header):
                    yield PairRow(*lines, problem=f"row has {len(cells)} cells, the header has {len(header)}")
                elif cells:
                    yield PairRow(*lines, *(cells[place] for place in places))
    except UnicodeDecodeError:
        raise ZeroVLError(_encoding_message(path)) from None
    except csv.Error as error:
        raise ZeroVLError(f"{path}: line {reader.line_num}: not valid CSV ({error}); fix the row there") from None
    except OSError as error:
        raise ZeroVLError(f"{path}: cannot be read ({error.strerror}); check the file and its rights") from None


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
