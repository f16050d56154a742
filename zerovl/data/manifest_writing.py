"""Rows of one split to their Parquet table and their index, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.data.manifest import INDEX_DTYPE, SCHEMA, Manifest
from zerovl.files import atomic_write

ROW_GROUP = 10_000  # rows at least; a group ends with a unit


class SplitWriter:
    """Writes table and index of one split; both appear when the block ends; if it raises, neither does."""

    def __init__(self, folder: Path, source: str, split: str) -> None:
        names = Manifest(folder, {})
        self._paths = (names.table_path(source, split), names.index_path(source, split))
        self._rows: list[dict[str, Any]] = []
        self._samples = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            table: IO[bytes] = stack.enter_context(atomic_write(self._paths[0]))
            self._index: IO[bytes] = stack.enter_context(atomic_write(self._paths[1]))
            self._table = stack.enter_context(pq.ParquetWriter(table, SCHEMA, compression="zstd"))
            self._head = self._write_head()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        if exception[0] is None:
            try:
                self._flush()
                self._index.seek(0)
                if self._write_head() != self._head:
                    raise RuntimeError("the head of the index grew; numpy no longer pads it")
            except BaseException as error:
                self._stack.__exit__(type(error), error, error.__traceback__)
                raise
        return self._stack.__exit__(*exception)

    def add(self, rows: Sequence[dict[str, Any]], shard: int) -> None:
        """Add the rows of one unit; usable ones are in the split's shard number `shard`."""
        good = [row for row in rows if row["error"] is None]
        records = np.empty(len(good), INDEX_DTYPE)
        records["shard"] = shard
        records["offset"] = [row["offset"] for row in good]
        records["size"] = [row["size"] for row in good]
        self._index.write(records.tobytes())
        self._samples += len(good)
        self._rows.extend(rows)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._table.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA), row_group_size=2 * ROW_GROUP)
            self._rows = []

    def _write_head(self) -> int:
        """Write the .npy header for what is written so far; numpy pads it so that the count can grow in place."""
        head = {"descr": np.lib.format.dtype_to_descr(INDEX_DTYPE), "fortran_order": False, "shape": (self._samples,)}
        np.lib.format.write_array_header_1_0(self._index, head)
        return self._index.tell()
