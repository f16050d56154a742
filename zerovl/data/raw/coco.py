"""COCO's own files: `annotations/captions_train2017.json` with images and annotations, pictures in `train2017/`.

Format: https://cocodataset.org/#format-data, sections 1 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import Source
from zerovl.data.raw.records import Reading, is_debris
from zerovl.data.raw.split_names import NAMES, TRAIN
from zerovl.data.raw.table_columns import Columns
from zerovl.data.raw.table_files import TableRow
from zerovl.data.raw.tables import SplitTable, pictures_folder, present_splits, read_tables
from zerovl.data.raw.whole_json import whole_json
from zerovl.errors import ZeroVLError
from zerovl.log import logger

_PLACES = ("annotations", "")  # where the files lie, the first that has one
_COLUMNS = Columns("file_name", "caption", "image_id", "")
_NAME = re.compile(r"captions_([a-z]*)", re.IGNORECASE)


class Coco:
    """The `Layout` of sources with a file of images and captions a split, as COCO publishes them."""

    name = "coco"
    signs = "captions_*.json, in the folder or in annotations/"
    remote = False
    uses = frozenset({"evaluation_split", "pictures"})

    def detect(self, folder: Path) -> bool:
        """Return whether there is a file of captions."""
        return bool(_files(folder))

    def splits(self, source: Source) -> list[str]:
        """Return the splits that the names of the files say; warns of files whose names say none."""
        files = _files(Path(source.path))
        if len(files) > 1 and (others := [file.name for file in files if not _split(file)]):
            logger().warning(
                f"source {source.name!r}: {', '.join(others)} {'is' if len(others) == 1 else 'are'} not read, since "
                "beside others a name must say its split: captions_train.json, captions_val.json"
            )
        return present_splits(_tables(source), source)

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Give the pictures of one split, each once the last of its captions is read."""
        return read_tables(_tables(source), source, split, max_caption_bytes, fetched)


class CaptionsFile:
    """One file of captions as a table: a row an annotation, then one for each image that cannot be used."""

    unit = "entry "  # of the annotations, and behind them of the images

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[TableRow] | None = None

    def columns(self) -> list[str]:
        """Return what a row has."""
        return [_COLUMNS.image, _COLUMNS.caption, _COLUMNS.image_id]

    def holds_pictures(self, column: str) -> bool:
        """Return False: the file has names alone."""
        return False

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Give the values; what cannot be read of an annotation or an image is the problem of its row."""
        if self._rows is None:
            self._rows = list(_rows(self.path))
        places = [self.columns().index(name) for name in columns]
        for row in self._rows:
            yield row if row.problem else TableRow(row.number, tuple(row.values[place] for place in places))


def _rows(path: Path) -> Iterator[TableRow]:
    """Give (file name, caption, image id) of each annotation, and what is wrong with images; numbered in this order."""
    images, annotations = _lists(path)
    names = {image["id"]: image.get("file_name") for image in reversed(images) if _has_id(image)}  # the first counts
    told = set()
    for number, annotation in enumerate(annotations, 1):
        key = annotation.get("image_id") if isinstance(annotation, dict) else None
        if isinstance(key, int | str) and key in names:
            told.add(key)
            yield TableRow(number, (names[key], annotation.get("caption"), key))
        else:
            yield TableRow(number, problem=f"no image of 'images' has its image_id {str(key)[:50]}")
    seen = set()
    for number, image in enumerate(images, len(annotations) + 1):
        if not _has_id(image):
            yield TableRow(number, problem="an image without an id")
        elif image["id"] in seen:
            yield TableRow(number, problem=f"image id {image['id']} was used before")
        elif image["id"] not in told:
            yield TableRow(number, problem=f"no caption: no annotation has the id {image['id']} of this image")
        seen.add(image["id"] if _has_id(image) else None)


def _has_id(image: Any) -> bool:
    return isinstance(image, dict) and isinstance(image.get("id"), int | str)


def _lists(path: Path) -> tuple[list[Any], list[Any]]:
    """Return the images and the annotations of a file; raises `ZeroVLError` where it has none."""
    content = whole_json(path)
    found = content if isinstance(content, dict) else {}
    images, annotations = found.get("images"), found.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise ZeroVLError(
            f"{path}: no lists 'images' and 'annotations'; expected captions as COCO has them (data/README.md)"
        )
    return images, annotations


def _files(folder: Path) -> list[Path]:
    found = (sorted((folder / place).glob("captions_*.json")) for place in _PLACES)
    return next(filter(None, ([file for file in files if not is_debris(file.name)] for files in found)), [])


def _split(file: Path) -> str:
    """Return the split that a name says: `captions_val2017.json`; "" where it says none."""
    said = _NAME.match(file.name)
    name = said[1].lower() if said else ""
    return name if name in NAMES else ""


def _tables(source: Source) -> list[SplitTable]:
    files = _files(Path(source.path))
    if not files:
        raise ZeroVLError(f"source {source.name!r}: {source.path}: no {Coco.signs}; put it there")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        if split := _split(file) or (TRAIN[0] if len(files) == 1 else ""):
            by_split.setdefault(split, []).append(file)
    for split, several in by_split.items():
        if len(several) > 1:
            names = " and ".join(file.name for file in several)
            raise ZeroVLError(f"source {source.name!r}: {source.path} has {names}, both of {split}; keep one of them")
    return [
        SplitTable(CaptionsFile(file), _COLUMNS, {split: None}, None, "", _pictures(source, file, split))
        for split, (file,) in by_split.items()
    ]


def _pictures(source: Source, file: Path, split: str) -> Path:
    """Return the folder of a file's pictures: named as the file, or as its split; else where all pictures are."""
    root = pictures_folder(source, Path(source.path))
    own = file.stem.removeprefix("captions_")
    places = [root / above / name for name in (own, split) for above in ("", "images")]
    return next((place for place in (*places, root / "images") if place.is_dir()), root)
