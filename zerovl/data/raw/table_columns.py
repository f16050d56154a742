"""Which column of a table is the picture, which the caption: those that are named, else those of a known name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from zerovl.data.csv_rows import shown_columns
from zerovl.data.raw.records import PICTURES
from zerovl.data.raw.table_files import TableFile
from zerovl.errors import ZeroVLError

# By role, the first that there is: of Hugging Face, open_clip and img2dataset, and what people call them.
_USUAL = {
    "image": ("image", "filepath", "file_name", "filename", "image_path", "image_name", "path", "jpg"),
    "caption": ("caption", "captions", "title", "text", "comment"),
    "image_id": ("image_id",),
    "split": ("split",),
}
_NEEDED = ("image", "caption")
_PICTURE = re.compile(rf"\.({'|'.join(PICTURES)})$", re.IGNORECASE)  # end of the name of a picture


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns by what they are; "" for one that there is not."""

    image: str
    caption: str
    image_id: str
    split: str

    @property
    def said(self) -> str:
        """What is taken for what: "image = filepath, caption = title"."""
        chosen = ((role, getattr(self, role)) for role in _USUAL)
        return ", ".join(f"{role} = {name}" for role, name in chosen if name)


def choose_columns(table: TableFile, named: Mapping[str, str]) -> Columns:
    """Return the columns of a table; `named` is `columns` of its source, where "" means none.

    Raises `ZeroVLError` that lists the columns that there are, where one is missing or stands twice.
    """
    present = table.columns()
    chosen = {role: named[role] if role in named else _usual(role, present) for role in _USUAL}
    for role, name in chosen.items():
        if name and present.count(name) > 1:
            raise ZeroVLError(f"{table.path}: column {name!r} stands twice in it; rename one of the two")
        if (name or role in _NEEDED) and (not name or name not in present):  # a header may have an empty cell
            looked = f"no column {name!r}" if name else f"no column for the {role} ({', '.join(_USUAL[role])})"
            raise ZeroVLError(
                f"{table.path}: {looked}; it has {shown_columns(present)}; name yours in data.sources, as in "
                f"columns: {{{role}: NAME}}{_headless_hint(present)}"
            )
    return Columns(**chosen)


def _usual(role: str, present: list[str]) -> str:
    """Return the first usual name that there is; as it is written, else in another letter case if one fits."""
    lowered = [name.lower() for name in present]
    exact = next((name for name in _USUAL[role] if name in present), "")
    alike = next((name for name in _USUAL[role] if lowered.count(name) == 1), "")
    return exact or (present[lowered.index(alike)] if alike else "")


def _headless_hint(present: list[str]) -> str:
    """Return what to do where the first line seems to be a row already; "" where it does not."""
    if any(name.startswith(("http://", "https://")) or _PICTURE.search(name) for name in present):
        return "; if its first line is a row already, put one with names above it, as in image and caption"
    return ""
