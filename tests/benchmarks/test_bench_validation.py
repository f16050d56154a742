"""The benchmark of the validation at scale end to end with a tiny manifest."""

import json
from pathlib import Path

from benchmarks import bench_validation
from benchmarks.child import in_process


def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "validation.json"
    assert bench_validation.main(["--smoke", "--out", str(out)], in_process) == 0
    (record,) = json.loads(out.read_text())["validation"].values()
    assert record["pairs"] == 3000
    assert record["cpu_seconds"] > 0
    assert record["manifest_mib"] > 0
