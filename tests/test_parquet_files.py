"""A pass over a Parquet file in parts holds parts, and not the file."""

import ast
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import zerovl
from zerovl.parquet_files import open_parquet

PRODUCT = [*Path(zerovl.__file__).parent.rglob("*.py"), *(Path(zerovl.__file__).parents[1] / "flows").rglob("*.py")]


def test_memory_stays_that_of_a_few_row_groups(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with pq.ParquetWriter(tmp_path / "table.parquet", pa.schema({"value": pa.int64()})) as writer:
        for _ in range(24):
            writer.write_table(
                pa.table({"value": generator.integers(0, 2**62, 1 << 17)})
            )  # 1 MiB that compress to none
    before = pa.total_allocated_bytes()
    held, rows = [], 0
    with open_parquet(tmp_path / "table.parquet") as file:
        for batch in file.iter_batches(1 << 14):
            held.append(pa.total_allocated_bytes() - before)
            rows += len(batch)
            del batch
    assert rows == 24 << 17
    assert max(held) < 8 << 20  # of 24 MiB


def test_the_product_opens_parquet_files_so() -> None:
    openers = {
        path.name
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "ParquetFile"
    }
    assert openers == {"parquet_files.py"}
