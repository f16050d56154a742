"""The benchmark of shared evaluation, without the command that it times."""

from pathlib import Path

import pytest

from benchmarks import bench_evaluate
from tests.support.tiny_project import recipe
from zerovl import params_file
from zerovl.files import read_json, write_json


def test_it_alternates_and_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = "evaluate.classification=[{name: near, folder: sets/a}, {name: far, csv: /b.csv, classnames: names.txt}]"
    params_file.write(recipe(sets), tmp_path / "params.yaml")
    runs: list[int] = []

    def timed(folder: Path) -> tuple[float, float]:
        params = params_file.load(folder / "params.yaml")
        machine, (near, far) = params.machine, params.evaluate.classification
        assert (near.folder, near.csv) == (f"{tmp_path}/sets/a", "")
        assert (far.csv, far.classnames) == ("/b.csv", f"{tmp_path}/names.txt")
        assert machine.threads == 1
        assert (folder / "data").is_symlink()
        write_json(folder / "reports/evaluation/metrics.json", {"overall": {"images": 3, "captions": 5}})
        runs.append(machine.ranks)
        return 4.0 / machine.ranks, 4.0

    monkeypatch.setattr(bench_evaluate, "_timed", timed)
    out = tmp_path / "evaluate.json"
    assert bench_evaluate.main(["--project", str(tmp_path), "--rounds", "2", "--out", str(out)]) == 0
    found = read_json(out)["evaluate"]["two ranks"]
    assert (found["ratio"], found["same_report"], found["images"]) == (0.5, True, 3)
    assert sorted(runs) == [1, 1, 2, 2]
