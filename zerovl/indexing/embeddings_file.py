"""The embeddings of an index as one file, for programs of one's own: .npz, or .parquet for many.

    .npz       key, path (N,) text, offset, size (N,) int64 (size -1: the whole file), image_embeddings (N, D) float32,
               model, images: text
    .parquet   key, path, offset, size, image_embedding; model and images in the metadata of its schema

It is written a part at a time, so memory does not grow with the embeddings.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.files import atomic_write
from zerovl.indexing.index import SCHEMA, Index
from zerovl.indexing.pairs_target import check_suffix


def write_embeddings(index: Index, out: Path) -> None:
    """Write all embeddings of an index with keys and places, as the suffix of `out` says."""
    check_suffix(out)
    writers: dict[str, Callable[[Index, Path], None]] = {".npz": _write_npz, ".parquet": _write_parquet}
    writers[out.suffix](index, out)


def _write_npz(index: Index, out: Path) -> None:
    keys, paths, offsets, sizes = [], [], [], []
    for places in index.tables():
        for one in places.to_pylist():
            keys.append(one["key"])
            paths.append(os.fsdecode(one["path"]))
            offsets.append(one["offset"])
            sizes.append(-1 if one["size"] is None else one["size"])
    arrays = {
        "key": np.array(keys, np.str_),
        "path": np.array(paths, np.str_),
        "offset": np.array(offsets, np.int64),
        "size": np.array(sizes, np.int64),
        "image_embeddings": index.embeddings,  # (N, D), mapped: numpy writes it a piece at a time
        **{name: np.array(value) for name, value in _about(index).items()},
    }
    with atomic_write(out) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _write_parquet(index: Index, out: Path) -> None:
    width, row = index.description.width, 0
    embedding = pa.field("image_embedding", pa.list_(pa.float32(), width))
    schema = SCHEMA.append(embedding).with_metadata(_about(index))
    with atomic_write(out) as file, pq.ParquetWriter(file, schema) as writer:
        for places in index.tables():
            part = np.ascontiguousarray(index.embeddings[row : row + len(places)], np.float32)  # (n, D)
            row += len(places)
            values = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), width)
            writer.write_table(pa.table([*places.columns, values], schema=schema))


def _about(index: Index) -> dict[str, str]:
    """What a file says of where its embeddings come from."""
    return {"model": index.description.model.digest, "images": index.description.images}
