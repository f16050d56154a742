"""The benchmark of large pools end to end with tiny settings."""

import json
from pathlib import Path

from benchmarks import bench_pool
from benchmarks.child import in_process


def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "pool.json"
    assert bench_pool.main(["--smoke", "--out", str(out)], in_process) == 0
    found = json.loads(out.read_text())["pool"]
    of_both = 2 * 300 * (1 + 5) * 4 / 2**20
    assert found["embedded"]["embeddings_mib"] == bench_pool.rounded(of_both * 16)
    assert found["evaluated"]["embeddings_mib"] == bench_pool.rounded(of_both * 8)
    assert all(record["seconds"] > 0 for record in found.values())
