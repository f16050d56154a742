"""Which column of a table is the picture, which the caption: those that are named, else those of a known name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zerovl.data.csv_rows import shown_columns
from zerovl.data.raw.table_files import TableFile
from zerovl.errors import ZeroVLError

# By role, the first that there is: of Hugging Face, open_clip, and what people call them.
_USUAL = {
    "image": ("image", "filepath", "file_name", "filename", "image_path", "path"),
    "caption": ("caption", "captions", "title", "text"),
    "image_id": ("image_id",),
    "split": ("split",),
}
_NEEDED = ("image", "caption")


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
                f"columns: {{{role}: NAME}}"
            )
    return Columns(**chosen)


def _usual(role: str, present: list[str]) -> str:
    return next((name for name in _USUAL[role] if name in present), "")
