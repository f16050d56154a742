"""The benchmark of approximate search end to end with tiny settings."""

import json
from pathlib import Path

import pytest

from benchmarks import bench_search


def test_it_runs(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'zerovl[search-faiss]'")
    out = tmp_path / "search.json"
    assert bench_search.main(["--smoke", "--out", str(out)]) == 0
    for record in json.loads(out.read_text())["search"].values():
        assert record["exact_seconds"] > 0
        assert record["approximate_seconds"] > 0
        assert record["recall_10"] > 0.5
