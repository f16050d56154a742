"""The manifest's tables for the validation: batch by batch, and one integer for every row of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zerovl.data.manifest import SCHEMA, Manifest
from zerovl.data.validation.statistics import Integers
from zerovl.errors import ZeroVLError
from zerovl.parquet_files import open_parquet

BATCH_ROWS = 16_384
_PLACE_BITS = 40  # place = table number << 40 | row


def place(table: int, row: int) -> int:
    """Return one integer for a row of the manifest; `table` counts in the sorted splits."""
    return table << _PLACE_BITS | row


def table_of(places: Integers) -> Integers:
    """Return the table numbers of places, (n,) each."""
    return places >> _PLACE_BITS


def open_tables(manifest: Manifest) -> list[pq.ParquetFile]:
    """Open the Parquet files of all splits, sorted; raises `ZeroVLError` for a missing or foreign one."""
    files = []
    for source, split in sorted(manifest.splits):
        path = manifest.table_path(source, split)
        try:
            file = open_parquet(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ZeroVLError(f"{path}: cannot be read ({error}); run `dvc repro -f prepare`") from None
        missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
        if missing:
            raise ZeroVLError(f"{path}: no column {', '.join(missing)}; run `dvc repro -f prepare`")
        files.append(file)
    return files


def train_hashes(manifest: Manifest) -> Iterator[tuple[npt.NDArray[np.uint64], Integers]]:
    """Give (hash (n,), place (n,)) of the usable training pictures, batch by batch."""
    for number, (parquet, (_, split)) in enumerate(zip(open_tables(manifest), sorted(manifest.splits), strict=True)):
        if split != "train":
            continue
        start = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=["phash", "error"]):
            keep = pc.and_(batch.column("error").is_null(), batch.column("phash").is_valid())
            places = place(number, start) + np.flatnonzero(keep.to_numpy(zero_copy_only=False))
            yield batch.column("phash").filter(keep).to_numpy(zero_copy_only=False), places
            start += len(batch)


def look_up(manifest: Manifest, places: set[int]) -> dict[int, tuple[str, str]]:
    """Return place -> (key, origin); reads only the row groups that hold one of them."""
    found: dict[int, tuple[str, str]] = {}
    for number, parquet in enumerate(open_tables(manifest)):
        start = place(number, 0)
        for group in range(parquet.metadata.num_row_groups):
            stop = start + parquet.metadata.row_group(group).num_rows
            if wanted := [each for each in places if start <= each < stop]:
                table = parquet.read_row_group(group, columns=["key", "origin"])
                for each in wanted:
                    key, origin = (table.column(name)[each - start].as_py() or "" for name in ("key", "origin"))
                    found[each] = (key, origin)
            start = stop
    return found
