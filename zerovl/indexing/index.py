"""An index: the embeddings of pictures in a folder, to be searched without embedding them again.

    INDEX/index.json                what it is of: model, preprocessing, pictures; names the other files, written last
    INDEX/embeddings-N.npy          (N, D) float32 or float16, L2-normalised, to be mapped
    INDEX/identities-N.npy          (N,) what tells a picture that has changed (`zerovl.indexing.listing`)
    INDEX/pictures-N.parquet        key and place of each picture, a row group a part
    INDEX/broken.csv                what could not be embedded, with reasons
    INDEX/approximate-DIGEST.faiss  where it was asked for (`zerovl.indexing.approximate`)
    INDEX/parts/                    of a run that was interrupted; the next one goes on with them

Each change writes files of the next number, so whoever searches meanwhile goes on with those of before.
Shapes: `N` pictures, `D` embedding width.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.data.raw.records import Picture
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.parquet_files import open_parquet

if TYPE_CHECKING:
    from zerovl.model.encoder import Encoder

FILE = "index.json"
BROKEN = "broken.csv"
PARTS = "parts"
VERSION = 1
DTYPES = ("float32", "float16")
KINDS = ("embeddings", "identities", "pictures")  # of files that have a number
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.binary()),  # of the file, relative to `images`; null where only the embedding is known
        ("offset", pa.int64()),  # of the picture in its file, bytes
        ("size", pa.int64()),  # bytes; null: the whole file
    ]
)
_CACHED_GROUPS = 32  # of `pictures-N.parquet`
_APPROXIMATE = r"approximate-[0-9a-f]+\.faiss"
_NUMBERED = r"(embeddings|identities)-\d+\.npy|pictures-\d+\.parquet"
_NAMES = rf"{re.escape(FILE)}|{re.escape(BROKEN)}|{_NUMBERED}|{_APPROXIMATE}"
_OWN = re.compile(rf"({_NAMES})|\.({_NAMES})\.\d+\.part")  # the second kind is what a killed `atomic_write` leaves


@dataclass(frozen=True)
class Maker:
    """The model that made the embeddings, and how it saw the pictures."""

    reference: str  # as it was given: "zerovl@production"
    digest: str
    preprocessing: dict[str, Any]

    @classmethod
    def of(cls, encoder: Encoder, reference: str) -> Maker:
        """Describe a loaded model."""
        return cls(reference, encoder.digest, asdict(encoder.transform))

    def __str__(self) -> str:
        return _called(self.reference, self.digest)


@dataclass(frozen=True)
class Description:
    """What `index.json` says."""

    model: Maker
    width: int  # D
    dtype: str  # one of DTYPES
    pictures: int  # N
    broken: int
    images: str  # the folder or tar of the pictures; "" where only embeddings are known
    number: int  # of the files
    digest: str = ""  # SHA-256 of the embeddings' bytes; "" of an index made before there were digests

    def file(self, folder: Path, kind: str) -> Path:
        """Return the file of a kind: embeddings, identities or pictures."""
        return folder / f"{kind}-{self.number}.{'parquet' if kind == 'pictures' else 'npy'}"

    def to_json(self) -> dict[str, Any]:
        """Return what `read_description` reads."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class IndexedPicture:
    """A picture of an index, and where it lies now."""

    row: int
    key: str
    picture: Picture | None  # None where only its embedding is known
    is_there: bool  # whether its file is

    @property
    def shown(self) -> str:
        """What a person finds the picture by: its path, in a tar its key, too."""
        if self.picture is None or self.picture.size is not None:
            return self.key
        return self.picture.path


def read_description(folder: Path) -> Description | None:
    """Return what an index says of itself, None where there is none; raises `ZeroVLError` for one of another kind."""
    path = folder / FILE
    if not path.is_file():
        return None
    values = read_json(path)
    if not isinstance(values, dict) or values.get("version") != VERSION:
        found = values.get("version") if isinstance(values, dict) else values
        raise ZeroVLError(f"{path}: version {found!r}, this code reads {VERSION}; remove {folder} and index again")
    try:
        values = {"digest": "", **values}
        given = {field.name: values[field.name] for field in fields(Description)}
        return Description(**{**given, "model": Maker(**values["model"])})
    except (KeyError, TypeError) as error:
        raise ZeroVLError(f"{path}: damaged ({error}); remove {folder} and index again") from None


class Index:
    """An index that is open; its files stay readable whatever happens to the folder."""

    def __init__(self, folder: Path) -> None:
        """Open an index; raises `ZeroVLError` where there is none, or a file of it is damaged."""
        described = read_description(folder)
        if described is None:
            begun = (folder / PARTS).is_dir()
            why = "its making was interrupted; run `zerovl index` again" if begun else "make one with `zerovl index`"
            raise ZeroVLError(f"{folder}: not an index (no {FILE}); {why}")
        self.folder = folder
        while True:
            try:
                self.embeddings, self._pictures = _opened(folder, described)
                break
            except FileNotFoundError as error:
                now = read_description(folder)
                if now is None or now.number == described.number:
                    raise ZeroVLError(f"{folder}: damaged ({error}); remove it and index again") from None
                described = now  # an update has replaced the files since the description was read
            except (OSError, ValueError, pa.ArrowInvalid) as error:
                raise ZeroVLError(f"{folder}: damaged ({error}); remove it and index again") from None
        self.description = described
        expected, rows = (described.pictures, described.width), self._pictures.metadata.num_rows
        if self.embeddings.shape != expected or rows != described.pictures:
            raise ZeroVLError(
                f"{folder}: damaged, {self.embeddings.shape} embeddings and {rows} pictures, expected {expected}; "
                "remove it and index again"
            )
        groups = [self._pictures.metadata.row_group(n).num_rows for n in range(self._pictures.num_row_groups)]
        self._starts = np.cumsum([0, *groups])  # first row of each row group
        self._group = lru_cache(_CACHED_GROUPS)(self._pictures.read_row_group)

    def __len__(self) -> int:
        return self.description.pictures

    def check_model(self, reference: str, digest: str) -> None:
        """Raise `ZeroVLError` naming both where the embeddings are of another model than that with `digest`."""
        check_same_model(self.folder, self.description.model, reference, digest)

    def check_images(self) -> None:
        """Raise `ZeroVLError` where the folder of the pictures is no longer there."""
        images = self.description.images
        if images and not Path(images).exists():
            again = "run `zerovl index` with the folder that has them now, for which nothing is embedded again"
            if self._is_of_embeddings():
                again = (
                    "put them back, or run `zerovl index` again with the file of embeddings that it was made of, for "
                    "an index that shows names alone"
                )
            raise ZeroVLError(f"{self.folder}: its pictures are no longer in {images}; {again}")

    def _is_of_embeddings(self) -> bool:
        """Whether it was made of a file of embeddings: then no picture was seen, and none has an identity."""
        identities = np.load(self.description.file(self.folder, "identities"), mmap_mode="r")
        return not identities[0]

    def pictures(self, rows: Sequence[int]) -> list[IndexedPicture]:
        """Return the pictures of some rows; their files are looked for, and not read."""
        return [self._picture(row) for row in rows]

    def tables(self) -> Iterator[pa.Table]:
        """Give the rows of `SCHEMA` of all pictures, a part at a time."""
        for group in range(self._pictures.num_row_groups):
            yield self._pictures.read_row_group(group)

    def _picture(self, row: int) -> IndexedPicture:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        (found,) = self._group(group).slice(row - int(self._starts[group]), 1).to_pylist()
        if found["path"] is None:
            return IndexedPicture(row, found["key"], None, True)
        images, relative = Path(self.description.images), os.fsdecode(found["path"])
        path = images if images.is_file() else images / relative
        return IndexedPicture(
            row, found["key"], Picture(str(path), found["offset"], found["size"]), os.path.isfile(path)
        )


def _opened(folder: Path, described: Description) -> tuple[npt.NDArray[np.floating], pq.ParquetFile]:
    """The embeddings (N, D), mapped, and the places of the pictures."""
    embeddings: npt.NDArray[np.floating] = np.load(described.file(folder, "embeddings"), mmap_mode="r")
    return embeddings, open_parquet(described.file(folder, "pictures"))


def is_own_file(name: str) -> bool:
    """Return whether a file of this name belongs to an index, one that was cut off while it was written included."""
    return name == PARTS or _OWN.fullmatch(name) is not None


def approximate_files(folder: Path) -> list[Path]:
    """Return the files of an index for approximate search, of whatever embeddings."""
    return sorted(path for path in folder.glob("approximate-*") if re.fullmatch(_APPROXIMATE, path.name))


def check_same_model(folder: Path, made_with: Maker, reference: str, digest: str) -> None:
    """Raise `ZeroVLError` naming both where an index was made with another model than that with `digest`."""
    if made_with.digest != digest:
        raise ZeroVLError(
            f"{folder}: made with {made_with}, and the model is {_called(reference, digest)}; give the model that it "
            "was made with, or make an index of this one in another folder"
        )


def _called(reference: str, digest: str) -> str:
    return f"{reference} ({digest[:12]})"


def read_bytes(picture: Picture) -> bytes:
    """Return the bytes of a picture as they are stored; raises `OSError`."""
    with open(picture.path, "rb") as file:
        file.seek(picture.offset)
        return file.read() if picture.size is None else file.read(picture.size)
