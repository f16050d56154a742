"""The benchmark of shards end to end with tiny settings."""

import json
from pathlib import Path

import pytest

from benchmarks import bench_shards
from benchmarks.child import in_process


def test_it_runs_and_the_cache_spares_requests(tmp_path: Path, clean_aws: None) -> None:
    out = tmp_path / "shards.json"
    assert bench_shards.main(["--smoke", "--out", str(out)], in_process) == 0
    found = json.loads(out.read_text())
    reading = found["reading"]
    assert reading["a request each"]["requests"] == 1
    assert reading["cache, cold"]["requests"] == pytest.approx(5 / 40)  # one for each small shard
    assert reading["the server alone"]["requests"] == pytest.approx(5 / 40)
    assert reading["cache, cold"]["of_the_server"] == pytest.approx(
        reading["cache, cold"]["samples_per_second"] / reading["the server alone"]["samples_per_second"], rel=0.01
    )
    assert reading["cache, cold"]["processor"] > 0
    assert reading["cache, cold, a line of 1 MB/s"]["mb_a_second"] == 1
    assert reading["cache, cold, a line of 1 MB/s"]["ratio"] > 0
    assert reading["cache, warm"]["requests"] == 0
    assert reading["cache, warm"]["ratio"] > 0
    assert found["mixing"]["global"]["distance"] == pytest.approx(1 / 3, abs=0.1)
    assert found["scale"]["3000, blocks"]["pairs"] == 3000
