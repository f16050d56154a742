"""Parquet files that are read in parts."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file whose parts are read one after the other, in the memory of a few of them.

    Raises `OSError` and `pyarrow.ArrowInvalid` as `ParquetFile` does. Its default, `pre_buffer=True`, keeps what was
    read until the last part: a pass over the file ends with all of its bytes in memory (pyarrow 26).
    """
    return pq.ParquetFile(path, pre_buffer=False)
