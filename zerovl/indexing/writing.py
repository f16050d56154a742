"""Write the files of an index a part at a time, so that memory does not grow with the number of pictures."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.files import atomic_write
from zerovl.indexing.index import BROKEN, SCHEMA, Description
from zerovl.indexing.known import IDENTITY, as_array
from zerovl.indexing.listing import Listed

_SHOWN = 3  # names of what is broken, for messages


class ArrayWriter:
    """Writes rows of an .npy file whose number is known at the end alone."""

    def __init__(self, file: IO[bytes], dtype: npt.DTypeLike, width: tuple[int, ...] = ()) -> None:
        """Begin with an empty array; `width` is the shape of a row."""
        self._file, self._dtype, self._width = file, np.dtype(dtype), width
        self.rows, self._sha256 = 0, hashlib.sha256()
        self._write_header()

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Add rows (n, *width)."""
        data = np.ascontiguousarray(rows, self._dtype).tobytes()
        self._file.write(data)
        self._sha256.update(data)
        self.rows += len(rows)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all rows so far, without the header."""
        return self._sha256.hexdigest()

    def finish(self) -> None:
        """Write how many there are; numpy leaves room in the header for any number."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        values = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._file, {**values, "shape": (self.rows, *self._width)})


class IndexWriter:
    """Writes embeddings, identities, places and what is broken; all of it stands when the block ends."""

    def __init__(self, folder: Path, described: Description) -> None:
        """Write the files that `described` names; its counts may be those of before."""
        self.reasons: Counter[str] = Counter()
        self.first_broken: list[str] = []
        self._stack = ExitStack()
        with ExitStack() as opening:
            embeddings, identities, pictures = (
                opening.enter_context(atomic_write(described.file(folder, kind)))
                for kind in ("embeddings", "identities", "pictures")
            )
            broken = opening.enter_context(atomic_write(folder / BROKEN, "w"))
            self._embeddings = ArrayWriter(embeddings, described.dtype, (described.width,))
            self._identities = ArrayWriter(identities, IDENTITY)
            self._pictures = opening.enter_context(pq.ParquetWriter(pictures, SCHEMA))
            self._broken = csv.writer(broken)
            self._broken.writerow(["picture", "reason"])
            self._stack = opening.pop_all()

    @property
    def rows(self) -> int:
        """Return how many pictures were added."""
        return self._embeddings.rows

    @property
    def digest(self) -> str:
        """Return the digest of the embeddings that were added."""
        return self._embeddings.digest

    def add(self, listed: list[Listed], embeddings: npt.NDArray[np.floating]) -> None:
        """Add pictures, at least one, with their embeddings (n, D)."""
        self._embeddings.add(embeddings)
        self._identities.add(as_array([one.identity for one in listed]))
        columns: list[list[Any]] = [
            [one.key for one in listed],
            [os.fsencode(one.path) for one in listed],
            [one.picture.offset for one in listed],
            [one.picture.size for one in listed],
        ]
        self._write(columns)

    def add_without_files(self, keys: list[str], embeddings: npt.NDArray[np.floating]) -> None:
        """Add pictures, at least one, of which nothing but key and embedding is known."""
        self._embeddings.add(embeddings)
        self._identities.add(np.zeros(len(keys), IDENTITY))  # of no file
        nothing = [None] * len(keys)
        self._write([keys, nothing, nothing, nothing])

    def add_broken(self, key: str, reason: str) -> None:
        """Add what has no embedding."""
        self._broken.writerow([key, reason])
        self.reasons[reason] += 1
        if len(self.first_broken) < _SHOWN:
            self.first_broken.append(key)

    def _write(self, columns: list[list[Any]]) -> None:
        arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        self._pictures.write_table(pa.table(arrays, schema=SCHEMA))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._embeddings.finish()
            self._identities.finish()
        self._stack.__exit__(kind, error, traceback)
