"""The embeddings of a .parquet of `zerovl embed`, read a group of rows at a time.

Of pictures: key, path, offset, size, image_embedding. Of pairs: image, image_id, ..., image_embedding; of rows with the
same image_id the first counts. Model and pictures' folder stand in the metadata of the schema.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zerovl.errors import ZeroVLError
from zerovl.indexing.listing import Listed
from zerovl.indexing.stored import StoredPart, normalised, place
from zerovl.parquet_files import open_parquet

_EMBEDDING, _ID = "image_embedding", "image_id"
_PICTURES, _PAIRS = ("key", "path", "offset", "size"), ("image", _ID)


class ParquetEmbeddings:
    """A table of pictures, or of pairs; memory holds a part of it, and a number for each picture of pairs."""

    def __init__(self, file: Path, width: int) -> None:
        """Open a table with embeddings of `width`; raises `ZeroVLError` where it is no such table."""
        self._file, self._width = file, width
        try:
            self._table = open_parquet(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise ZeroVLError(
                f"{file}: not a Parquet file that can be read ({error}); make it with `zerovl embed`"
            ) from None
        schema: pa.Schema = self._table.schema_arrow
        self._columns = next((names for names in (_PICTURES, _PAIRS) if set(names) <= set(schema.names)), ())
        if not self._columns or _EMBEDDING not in schema.names:
            raise ZeroVLError(
                f"{file}: expected the columns {_EMBEDDING} and {', '.join(_PICTURES)}, or {', '.join(_PAIRS)}, as "
                f"`zerovl embed` writes them; found {', '.join(schema.names)}"
            )
        kind = schema.field(_EMBEDDING).type
        if (
            not pa.types.is_fixed_size_list(kind)
            or kind.list_size != width
            or not pa.types.is_floating(kind.value_type)
        ):
            raise ZeroVLError(f"{file}: {_EMBEDDING} is {kind}; the model's are lists of {width} floats")
        if not self._table.metadata.num_rows:
            raise ZeroVLError(f"{file}: has no rows; make it with `zerovl embed`")
        about = schema.metadata or {}
        self.model, self.images = about.get(b"model", b"").decode(), about.get(b"images", b"").decode()

    def parts(self, size: int) -> Iterator[StoredPart]:
        """Give all pictures, each once."""
        seen: set[int] = set()
        first = 0
        for batch in self._table.iter_batches(size, columns=[*self._columns, _EMBEDDING]):
            embeddings = normalised(self._file, self._array(batch, first), first)
            rows = batch.select(self._columns).to_pylist()
            first += len(rows)
            if self._columns == _PAIRS:
                yield from self._of_pairs(rows, embeddings, seen)
            else:
                yield StoredPart([row["key"] for row in rows], embeddings, _places(rows))

    @staticmethod
    def _of_pairs(
        rows: list[dict[str, Any]], embeddings: npt.NDArray[np.float32], seen: set[int]
    ) -> Iterator[StoredPart]:
        kept = []
        for number, row in enumerate(rows):
            if (picture := int(row[_ID])) not in seen:
                seen.add(picture)
                kept.append(number)
        if kept:
            names = [str(rows[number]["image"]) for number in kept]
            yield StoredPart(names, embeddings[kept], [place(name, name, 0, None) for name in names])

    def _array(self, batch: pa.RecordBatch, first: int) -> npt.NDArray[np.floating]:
        """The embeddings of some rows, (n, D)."""
        column = batch.column(_EMBEDDING)
        flat = column.flatten()
        if column.null_count or flat.null_count:
            raise ZeroVLError(f"{self._file}: {_EMBEDDING} is empty in some of the rows from {first} on")
        found: npt.NDArray[np.floating] = flat.to_numpy(zero_copy_only=False).reshape(-1, self._width)
        return found


def _places(rows: list[dict[str, Any]]) -> list[Listed] | None:
    """Where pictures lie, None where a path is missing, as in an index of names alone."""
    if any(row["path"] is None for row in rows):
        return None
    return [place(row["key"], os.fsdecode(row["path"]), row["offset"], row["size"]) for row in rows]
