"""Two small raw sources for runs of `prepare` that are interrupted: their samples make five shards."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import raw_sources

SETTINGS = {"shard_samples": 3, "tokenizer_vocab": 60}


def write_raw(root: Path) -> None:
    raw_sources.write_zerovl(root / "raw/a", "train", 5)
    raw_sources.write_zerovl(root / "raw/a", "valid", 2, first=50)
    rows = [{"image": raw_sources.jpeg(number), "caption": f"number {number}"} for number in range(4)]
    (root / "raw/b").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "raw/b/train.parquet")
