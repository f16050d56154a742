"""A manifest of any size without pictures, as `zerovl prepare` leaves it: for what reads nothing but the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zerovl.data.manifest import SCHEMA, Manifest, ShardInfo, SplitInfo


def write(folder: Path, train: int, valid: int) -> None:
    """Write the manifest of a source: 1000 rows a shard, two captions a row, no key or picture in two of them."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    splits = {}
    number = 0
    for split, count in (("train", train), ("valid", valid)):
        with pq.ParquetWriter(folder / f"web-{split}.parquet", SCHEMA) as writer:
            for start in range(0, count, 50_000):
                ids = np.arange(number, number + min(50_000, count - start))
                number += len(ids)
                text = pa.array(ids).cast(pa.string())
                rows = np.arange(start, start + len(ids))
                shards = pa.array(rows // 1000).cast(pa.string())
                pool = pa.array([f"caption {i} " + "word " * (i % 17) for i in range(5000)])
                offsets = pa.array(np.arange(0, 2 * len(ids) + 1, 2, dtype=np.int32))
                captions = pool.take(pa.array(generator.integers(0, len(pool), 2 * len(ids))))
                caption_ids = pa.array(np.arange(2 * ids[0], 2 * ids[-1] + 2))
                columns = {
                    "key": pc.binary_join_element_wise("web", text, "-"),
                    "source": pa.repeat("web", len(ids)),
                    "split": pa.repeat(split, len(ids)),
                    "shard": pc.binary_join_element_wise("web", split, pc.utf8_lpad(shards, 6, "0"), "/"),
                    "offset": rows % 1000 * 2048,
                    "size": np.full(len(ids), 2048),
                    "image_id": ids,
                    "captions": pa.ListArray.from_arrays(offsets, captions),
                    "caption_ids": pa.ListArray.from_arrays(offsets, caption_ids),
                    "width": generator.integers(200, 600, len(ids)),
                    "height": generator.integers(200, 600, len(ids)),
                    "bytes": generator.integers(10_000, 90_000, len(ids)),
                    "sha256": pc.utf8_lpad(text, 64, "0"),
                    "phash": generator.integers(0, 2**64, len(ids), dtype=np.uint64),
                    "recoded": pa.nulls(len(ids)),
                    "error": pa.nulls(len(ids)),
                    "origin": pc.binary_join_element_wise("web", text, "/"),
                }
                writer.write_table(pa.table([_array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA))
        shards = tuple(
            ShardInfo(f"web/{split}/{shard:06d}", min(1000, count - 1000 * shard), 2_048_000, f"{shard:064d}")
            for shard in range(-(-count // 1000))
        )
        splits["web", split] = SplitInfo(count, 2 * count, 0, shards)
    Manifest(folder, splits).save()


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return pa.array(values).cast(kind)
