"""Memory does not grow with the number of pairs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from zerovl.data.manifest import SCHEMA, Manifest, ShardInfo, SplitInfo

CHILD = """
import json, re, sys, time
from pathlib import Path
import great_expectations, pandas
from zerovl.stages import validate
from zerovl.params import Params
from zerovl.workspace import Workspace
for root in sys.argv[1:]:  # the first sets the mark above which the others may not rise by much
    started = time.monotonic()
    validate.run(Params(), Workspace(Path(root)))
    # Not ru_maxrss, which begins with what the parent had when it started this process.
    highest = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    print(json.dumps({"highest": highest, "seconds": time.monotonic() - started}))
"""


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return pa.array(values).cast(kind)


def write(folder: Path, train: int, valid: int) -> None:
    """Random hashes, two captions a row, 1000 rows a shard."""
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


@pytest.mark.slow
def test_a_million_rows_fit_in_little_memory(tmp_path: Path) -> None:
    for name, train in (("small", 50_000), ("large", 980_000)):
        write(tmp_path / name / "data/manifest", train, 20_000)
    folders = [str(tmp_path / "small"), str(tmp_path / "large")]
    child = subprocess.run([sys.executable, "-c", CHILD, *folders], capture_output=True, text=True, check=True)
    small, large = (json.loads(line) for line in child.stdout.splitlines() if line.startswith("{"))
    print(small, large)
    assert 0 < small["highest"] < 1e9
    # 930,000 rows more: their manifest in memory would be 0.5 GB and more.
    assert large["highest"] - small["highest"] < 150e6
    verdict = json.loads((tmp_path / "large/reports/validation/verdict.json").read_text())
    assert verdict["rows"] == 1_000_000
    assert verdict["sampled_rows"] == 20_000
