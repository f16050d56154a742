"""The benchmark of the inputs' way to a GPU end to end with tiny settings."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import bench_gpu, bench_transfer, kinds
from benchmarks.towers import make, make_batch
from zerovl.device import own_device, uses_gpu
from zerovl.distributed.ranks import Ranks
from zerovl.engine.model_options import Side, prepare_model
from zerovl.engine.transfer import NO_TRANSFER
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import MachineParams

CPU = torch.device("cpu")


def test_it_runs_and_says_what_it_did_not_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []

    def prepare(model: DualEncoder, freeze: list[Side], machine: MachineParams, ranks: Ranks) -> None:
        """Compiled towers run uncompiled: a compilation takes longer than all else here."""
        compiled.append(machine.compile)
        prepare_model(model, freeze, machine.model_copy(update={"compile": False}), ranks)

    monkeypatch.setattr(bench_gpu, "prepare_model", prepare)
    out = tmp_path / "transfer.json"
    assert bench_transfer.main(["--smoke", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {"date", "machine", "code", "settings"} < found.keys()
    assert compiled == [False, True]
    streams = {"DGA, own stream", "DGA, own stream, no room"}
    assert found["eager"].keys() == {"plain", "DGA, no stream"} | streams
    assert found["compiled"].keys() == {"plain", "DGA with kept graphs, 0", "DGA with kept graphs, 2"}
    for name, record in (found["eager"] | found["compiled"]).items():
        if name in streams and own_device().type != "cuda":
            assert record == {"not_measured": "a stream needs a GPU"}
        else:
            assert record["pairs_per_second"] > 0
    assert [record["kept"] for record in found["compiled"].values()] == [0, 0, 2]


def test_a_step_moves_its_inputs_the_way_that_is_asked_for() -> None:
    model = make("tiny", CPU)
    moved: list[int] = []

    class Counting:
        room = 0

        def __call__(self, inputs, known=None):  # type: ignore[no-untyped-def]
            moved.append(len(inputs.images))
            return NO_TRANSFER(inputs)

    step = kinds.finders(model, CPU, "float32", 0, Counting())[kinds.DGA]()
    kinds.run_step(step, model, make_batch("tiny", 4, 2))
    assert moved == [2, 2, 2]  # each micro-batch once a pass, but for the one with a kept graph


@pytest.mark.skipif(uses_gpu(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_transfer.main(["--out", str(tmp_path / "transfer.json")]) == 2
    assert "no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
