"""The pairs of a CSV with their embeddings as one file, written some rows at a time: .parquet, or .npz.

    .parquet   image, image_id, caption, caption_id, image_embedding, text_embedding; model and images in the metadata
    .npz       image_embeddings, text_embeddings (M, D) float32, image_id, caption_id (M,) int64, image (M,) text,
               model, images: text

Rows go into a folder beside the file first, and make it when all are there; embeddings are never held together.
Shapes: `M` rows, `n` some of them, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.files import atomic_write
from zerovl.indexing.index import Description
from zerovl.indexing.pairs import Pair
from zerovl.indexing.writing import ArrayWriter

Floats = npt.NDArray[np.floating]
_SIDES = ("image", "text")


class PairsFile(Protocol):
    """Takes rows as long as its block is open, and becomes a file when all of them are there."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def add(self, rows: Sequence[Pair], images: Floats, texts: Floats) -> None:
        """Add rows, at least one, with the embeddings of both sides (n, D)."""

    def finish(self, out: Path) -> None:
        """Make `out` of the rows; called after the block."""


class ParquetPairs:
    """A table, one group of rows for each part that is added."""

    def __init__(self, folder: Path, described: Description) -> None:
        """Write into `folder`; `described` is the index of the pictures."""
        self._path, self._stack = folder / "rows.parquet", ExitStack()
        embedding = pa.list_(pa.float32(), described.width)
        numbers, text = pa.int64(), pa.string()
        columns = [("image", text), ("image_id", numbers), ("caption", text), ("caption_id", numbers)]
        columns += [(f"{side}_embedding", embedding) for side in _SIDES]
        self._schema = pa.schema(columns, metadata=_about(described))

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            file = opening.enter_context(atomic_write(self._path))
            self._table = opening.enter_context(pq.ParquetWriter(file, self._schema))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def add(self, rows: Sequence[Pair], images: Floats, texts: Floats) -> None:
        """Add a group of rows."""
        columns = [[getattr(row, name) for row in rows] for name in self._schema.names[:4]]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=False)]
        for its in (images, texts):  # (n, D)
            flat = pa.array(np.ascontiguousarray(its, np.float32).ravel())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, its.shape[1]))
        self._table.write_table(pa.table(arrays, schema=self._schema))

    def finish(self, out: Path) -> None:
        """Put the table in its place."""
        self._path.replace(out)


class NpzPairs:
    """Arrays: the embeddings in files that are mapped when they are put together, names and ids in memory."""

    def __init__(self, folder: Path, described: Description) -> None:
        """Write into `folder`; `described` is the index of the pictures."""
        self._paths = {side: folder / f"rows.{side}_embeddings.npy" for side in _SIDES}
        self._described, self._stack = described, ExitStack()
        self._names: list[str] = []
        self._ids: dict[str, list[int]] = {"image_id": [], "caption_id": []}

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            files = [opening.enter_context(atomic_write(path)) for path in self._paths.values()]
            self._sides = [ArrayWriter(file, np.float32, (self._described.width,)) for file in files]
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            for side in self._sides:
                side.finish()
        self._stack.__exit__(kind, error, traceback)

    def add(self, rows: Sequence[Pair], images: Floats, texts: Floats) -> None:
        """Add some rows."""
        for writer, its in zip(self._sides, (images, texts), strict=True):
            writer.add(its)
        self._names += [row.image for row in rows]
        for name, ids in self._ids.items():
            ids += [getattr(row, name) for row in rows]

    def finish(self, out: Path) -> None:
        """Put the arrays together; numpy writes those that are mapped a piece at a time."""
        arrays = {f"{side}_embeddings": np.load(path, mmap_mode="r") for side, path in self._paths.items()}
        arrays |= {name: np.array(ids, np.int64) for name, ids in self._ids.items()}
        arrays["image"] = np.array(self._names, np.str_)
        arrays |= {name: np.array(value) for name, value in _about(self._described).items()}
        with atomic_write(out) as file:
            np.savez(file, **arrays)


PAIRS_FILES: dict[str, Callable[[Path, Description], PairsFile]] = {".npz": NpzPairs, ".parquet": ParquetPairs}


def _about(described: Description) -> dict[str, str]:
    """What a file says of where its embeddings come from."""
    return {"images": described.images, "model": described.model.digest}
