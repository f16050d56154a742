"""The benchmark of decoding on the GPU end to end with tiny settings."""

import json
from pathlib import Path

from benchmarks import bench_decode
from zerovl.data.batches.gpu_decoding import nvjpeg_problem
from zerovl.device import own_device


def test_it_runs_and_says_what_it_did_not_measure(tmp_path: Path) -> None:
    out = tmp_path / "decode.json"
    assert bench_decode.main(["--smoke", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["decode"]
    assert found["exact, one core"]["pictures_per_second"] > 0
    assert found["packed for a GPU, one core"]["pictures_per_second"] > 0
    problem = nvjpeg_problem(own_device())
    assert found["nvJPEG"].get("not_measured") == problem
