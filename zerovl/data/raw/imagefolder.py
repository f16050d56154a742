"""Hugging Face's `imagefolder`: pictures with a table `metadata` beside them, `file_name` and a caption a row.

Format: https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.file_names import plain_name
from zerovl.data.raw.layout import Source
from zerovl.data.raw.records import Reading, is_debris
from zerovl.data.raw.split_names import NAMES, TRAIN, split_named
from zerovl.data.raw.table_columns import choose_columns
from zerovl.data.raw.table_files import KINDS, open_table
from zerovl.data.raw.tables import (
    SplitTable,
    lowered,
    present_splits,
    read_tables,
    relative_prefix,
    split_by_rows,
)
from zerovl.data.raw.unread_files import is_other_table, say_unread, unpacked_name
from zerovl.errors import ZeroVLError
from zerovl.log import logger

_STEM = "metadata"


class ImageFolder:
    """The `Layout` of sources with a table in each split's folder, or one for all of them."""

    name = "imagefolder"
    signs = "metadata.csv, .jsonl or .parquet, in the folder or in train/ and valid/"
    remote = False
    uses = frozenset({"evaluation_split", "columns", "pictures"})

    def detect(self, folder: Path) -> bool:
        """Return whether there is a table `metadata`, in the folder or in that of a split."""
        return bool(_files(folder))

    def splits(self, source: Source) -> list[str]:
        """Return the splits that have a folder with a table, or a picture in the table of all; warns of unread ones."""
        say_unread(source.name, _unread(Path(source.path)), ", ".join(KINDS))
        if others := _other_folders(source):
            logger().warning(
                f"source {source.name!r}: {', '.join(others)} {'is' if len(others) == 1 else 'are'} not read, since "
                "the folder is not called as a split; rename it, or name it in data.sources as the path of a source"
            )
        return present_splits(_tables(source), source)

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Give the pictures of one split in the order of its table."""
        return read_tables(_tables(source), source, split, max_caption_bytes, fetched)


def _files(folder: Path) -> list[Path]:
    """Return the tables of the splits' folders; where there is none, those of the folder itself."""
    found = [file for place in _split_folders(folder) for file in _beside(place)]
    return found or _beside(folder)


def _split_folders(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.name.lower() in NAMES and place.is_dir())


def _unread(folder: Path) -> list[str]:
    """Return the names of compressed tables of the splits' folders and of the folder itself, and of other kinds."""
    places = [place for place in (folder, *_split_folders(folder)) if not _beside(place)]  # else it is a copy
    names = sorted(file.relative_to(folder).as_posix() for place in places for file in place.glob(f"{_STEM}.*"))
    return [name for name in names if Path(unpacked_name(name)).suffix.lower() in KINDS or is_other_table(name)]


def _other_folders(source: Source) -> list[str]:
    """Return the tables of folders that are no split's and no other source's."""
    folder = Path(source.path)
    others = sorted(place for place in folder.iterdir() if place.name.lower() not in NAMES and place.is_dir())
    own = (place for place in others if not is_debris(place.name) and str(place) not in source.sources_inside)
    return [file.relative_to(folder).as_posix() for place in own for file in _beside(place)]


def _beside(folder: Path) -> list[Path]:
    files = [folder / f"{_STEM}{ending}" for ending in KINDS]
    return [file for file in files if file.is_file()]


def _tables(source: Source) -> list[SplitTable]:
    files = _files(Path(source.path))
    if not files:
        raise ZeroVLError(f"source {source.name!r}: {source.path}: no {ImageFolder.signs}; put it there")
    if files[0].parent != Path(source.path) and (outer := _beside(Path(source.path))):
        inner = files[0].relative_to(source.path)
        raise ZeroVLError(
            f"source {source.name!r}: {source.path} has {outer[0].name} and {inner}, and it is not known whether one "
            "has the rows of the other; keep the one for all splits, or those in the splits' folders"
        )
    for folder in sorted({file.parent for file in files}):
        if len(names := [file.name for file in files if file.parent == folder]) > 1:
            raise ZeroVLError(f"source {source.name!r}: {folder} has {' and '.join(names)}; keep one of them")
    return [_table(file, source) for file in files]


def _table(path: Path, source: Source) -> SplitTable:
    table = open_table(path)
    columns = choose_columns(table, {"image": "file_name", **source.columns})
    prefix = relative_prefix(path.parent, source)
    if path.parent != Path(source.path):
        return SplitTable(table, columns, {split_named(path.parent.name): None}, None, prefix)
    if columns.split:
        return split_by_rows(table, columns, lowered, prefix)
    return split_by_rows(table, replace(columns, split=columns.image), _first_folder, prefix)


def _first_folder(name: Any) -> str:
    """Return the split that a picture's folder says: `train/0.jpg`; train where it says none."""
    first, separator, _ = plain_name(str(name)).removeprefix("./").partition("/")
    return first.lower() if separator and first.lower() in NAMES else TRAIN[0]
