"""Where the pairs of a CSV go when they are embedded, and what is looked at before anything heavy is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.indexing.listing import CsvListing
from zerovl.indexing.pairs import LeftOut, each_row
from zerovl.text_format import plural

PICTURES = "pictures"  # folder in that of the parts
CAPTIONS, ROWS = "captions-", "rows."  # how the names of others in it begin
SUFFIXES = (".npz", ".parquet")


def check_suffix(out: Path) -> None:
    """Raise `ZeroVLError` where a file of embeddings is neither kind by its name."""
    if out.suffix not in SUFFIXES:
        raise ZeroVLError(f"--out {out}: expected a name that ends in {' or '.join(SUFFIXES)}")


@dataclass(frozen=True)
class PairsTarget:
    """The files that are made."""

    out: Path  # an .npz or .parquet

    @property
    def left_out(self) -> Path:
        """Return the CSV of the rows that are not usable."""
        return self.out.with_name(f"{self.out.name}.broken.csv")

    @property
    def parts(self) -> Path:
        """Return the folder of what is made on the way, which is removed at the end."""
        return self.out.with_name(f"{self.out.name}.parts")

    def check(self) -> None:
        """Raise `ZeroVLError` where the folder of the parts has something else in it."""
        found = [path.name for path in self.parts.iterdir()] if self.parts.is_dir() else []
        others = sorted(
            name for name in found if name != PICTURES and not name.lstrip(".").startswith((CAPTIONS, ROWS))
        )
        if others:
            raise ZeroVLError(
                f"{self.parts}: in the way, parts of {self.out.name} go there, and {others[0]!r} is none of them; move "
                "it or remove it, or name another --out"
            )


def check_any_picture(listing: CsvListing) -> None:
    """Raise `ZeroVLError` where a CSV has no rows, or not one with a picture that is there."""
    rows, first = 0, None
    for row in each_row(listing.table):
        rows += 1
        wrong = row if isinstance(row, LeftOut) else None
        if not isinstance(row, LeftOut):
            found = listing.named(row.image)
            if not found.problem and os.path.isfile(found.picture.path):
                return
            wrong = LeftOut(row.lines, row.image, f"not in {listing.root}")
        first = first or wrong
    if first is None:
        raise ZeroVLError(f"{listing.table}: has no rows; give a CSV with at least one pair")
    raise ZeroVLError(
        f"{listing.table}: none of its {plural(rows, 'row')} can be embedded; line {first.lines}: "
        f"{first.image!r}: {first.reason}; correct the CSV, or give the folder of the pictures with --images"
    )
