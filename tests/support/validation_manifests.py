"""Small manifests for the tests of `validate`: clean by default, with rows changed at will."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.data.manifest import SCHEMA, Manifest, ShardInfo, SplitInfo

SPLITS = (("alpha", "train"), ("alpha", "valid"), ("beta", "train"), ("beta", "valid"))
Rows = dict[tuple[str, str], list[dict[str, Any]]]


def clean_rows(count: int = 30) -> Rows:
    """`count` good rows a split; hashes are random, so that no two pictures look alike."""
    rows: Rows = {}
    generator = np.random.default_rng(5)
    number = 0
    for source, split in SPLITS:
        rows[source, split] = []
        for row in range(count):
            number += 1
            rows[source, split].append(
                {
                    "key": f"{source}-{number}",
                    "source": source,
                    "split": split,
                    "shard": f"{source}/{split}/{row // 10:06d}.tar",
                    "offset": row % 10 * 2048,
                    "size": 2048,
                    "image_id": number,
                    "captions": [f"a red circle left of square {number}", "two blue dots"],
                    "caption_ids": [number * 10, number * 10 + 1],
                    "width": 64 + row % 3,
                    "height": 48,
                    "bytes": 1000 + row,
                    "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
                    "phash": int(generator.integers(0, 2**64, dtype=np.uint64)),
                    "recoded": None,
                    "error": None,
                    "origin": f"{source}/{split}_anno.csv:{row + 2}",
                }
            )
    return rows


def quarantine(row: dict[str, Any], error: str) -> None:
    row.update(dict.fromkeys(("shard", "offset", "size", "width", "height", "bytes", "sha256", "phash")), error=error)


def write_manifest(folder: Path, rows: Rows, row_group: int = 7) -> Manifest:
    """A manifest whose counts agree with `rows`."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for (source, split), its_rows in rows.items():
        table = pa.Table.from_pylist(its_rows, SCHEMA)
        pq.write_table(table, folder / f"{source}-{split}.parquet", row_group_size=row_group)
        good = [row for row in its_rows if row["error"] is None]
        names = sorted({row["shard"] for row in good if row["shard"]})
        shards = tuple(
            ShardInfo(
                name,
                len(members := [row for row in good if row["shard"] == name]),
                2048 * len(members),
                hashlib.sha256(repr(members).encode()).hexdigest(),
            )
            for name in names
        )
        captions = sum(caption is not None for row in good for caption in row["captions"] or [])
        splits[source, split] = SplitInfo(len(good), captions, len(its_rows) - len(good), shards)
    manifest = Manifest(folder, splits)
    manifest.save()
    return manifest
