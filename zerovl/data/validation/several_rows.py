"""Recognise a valid split made from a table with a row a caption: most of its pictures stand there several times.

img2dataset makes a sample of each row, so a set with five captions a picture becomes five samples of equal bytes, and
retrieval counts four of them as wrong answers to the fifth one's caption.
"""

from __future__ import annotations

from dataclasses import dataclass

from zerovl.data.manifest import Manifest
from zerovl.data.validation.repeats import EqualRows
from zerovl.text_format import plural

_MOST = 0.5  # of a split's rows


@dataclass(frozen=True)
class SeveralRows:
    """A split that has its pictures several times."""

    split: str
    repeated: int  # rows whose picture another row has too
    rows: int
    each: float  # rows of such a picture

    def __str__(self) -> str:
        """Return what the rule says of it."""
        return f"{self.split}: {self.repeated} of {self.rows} rows, some {self.each:.0f} a picture"


def several_rows(manifest: Manifest, pictures: EqualRows) -> list[SeveralRows]:
    """Return the valid splits of which most rows have the picture of another one; `pictures` has all tables' rows."""
    found = []
    for table, (source, split) in enumerate(sorted(manifest.splits)):
        rows, repeated = manifest.pairs(source, split), int(pictures.values[table])
        if split == "valid" and repeated > rows * _MOST:
            found.append(SeveralRows(f"{source}/{split}", repeated, rows, pictures.rows_a_value(table)))
    return found


def told(found: list[SeveralRows]) -> str:
    """Return the sentence of the rule."""
    if not found:
        return "in no valid split do most rows share their picture with another row"
    return (
        f"{plural(len(found), 'valid split')} with most rows sharing their picture with another row, wrong answers to "
        f"each other ({'; '.join(map(str, found))})"
    )
