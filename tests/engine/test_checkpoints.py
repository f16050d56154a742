"""Checkpoints are whole or absent, on any number of ranks, and a bad disk harms none of the good ones."""

import errno
import json
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, load
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.engine.test_host_reads import StepBatch, trainer_of
from tests.support.checkpoint_states import equal, of, save, small_files, trained, under
from tests.support.rank_groups import run_group
from tests.support.towers import CPU, RANKS, decoupled_step, model
from zerovl.distributed.ranks import Ranks
from zerovl.engine import checkpoint_folder
from zerovl.engine import checkpoints as module
from zerovl.engine.checkpoint_files import shard_name
from zerovl.engine.checkpoint_folder import SavedOn
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.precision import Precision
from zerovl.engine.state import TrainingState, full_weights
from zerovl.engine.trainer import Cadence


def test_round_trip_and_keep(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    for step in (1, 2, 3):
        assert save(kept, trained(step), step)
    assert kept.steps() == [2, 3]
    restored = trained(9)
    assert kept.restore_newest(restored, print) == 3
    assert equal(restored, trained(3))
    assert not equal(restored, trained(9))


def test_what_it_was_written_on_is_known_as_far_as_it_is_said(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", 2, 0, RANKS, gathers="low")
    save(kept, trained(), 1)
    assert kept.saved_on(1) == SavedOn(1, torch.get_num_threads(), "low")
    file = tmp_path / "c" / "step-00000001" / "state.json"
    older = {name: value for name, value in json.loads(file.read_text()).items() if name not in ("threads", "gathers")}
    file.write_text(json.dumps(older))
    assert kept.saved_on(1) == SavedOn(1, None, None)
    assert kept.restore_newest(trained(9), print) == 1


def test_every_so_many_th_stays_over_restarts(tmp_path: Path) -> None:
    kept = under(tmp_path / "c", keep=1, keep_every=3)
    for step in (10, 25, 26, 40):  # the 26 is the third
        save(kept, trained(), step)
    assert kept.steps() == [26, 40]
    again = under(tmp_path / "c", keep=1, keep_every=3)
    again.restore_newest(trained(9), print)
    for step in (50, 60, 70):
        save(again, trained(), step)
    assert again.steps() == [26, 60, 70]


def test_training_goes_on_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = threading.Event()
    write = module.write_shard

    def slow(path: Path, pieces: object) -> None:
        assert disk.wait(60)
        write(path, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_shard", slow)
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        disk.set()

    kept = under(tmp_path / "c", keep=9)
    state = trained(1)
    kept.begin(state, 1, hear)
    kept.poll(hear)
    assert kept.steps() == []
    assert said == []
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.zero_()  # the next step changes the weights meanwhile
    kept.begin(trained(2), 2, hear)  # waits, and says so
    assert kept.steps() == [1]
    kept.begin(trained(3), 3, hear)  # silent, if it waits again
    assert kept.finish(hear)
    assert kept.steps() == [1, 2, 3]
    assert len(said) == 1
    assert "step 2 waits until that of step 1 is written" in said[0]
    assert kept.take_blocked() > 0
    shutil.rmtree(kept.path(2)), shutil.rmtree(kept.path(3))
    kept.restore_newest(state, print)
    assert equal(state, trained(1))


def test_a_save_that_holds_up_the_last_step_is_no_reason_for_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`machine.checkpoint_steps` would have to fit the end of the run."""
    disk, waited = threading.Event(), []
    write = module.write_shard

    def slow(path: Path, pieces: object) -> None:
        assert disk.wait(60)
        write(path, pieces)  # type: ignore[arg-type]

    class Waiting(Checkpoints):
        def _settle(self, wait: bool, report: Callable[[str], None]) -> None:
            if wait and not disk.is_set():
                waited.append(self._save.step if self._save else 0)
                disk.set()
            super()._settle(wait, report)

    monkeypatch.setattr(module, "write_shard", slow)
    dual, precision, said = model().train(), Precision("float32", CPU), list[str]()
    kept = Waiting(tmp_path / "c", 9, 0, RANKS)
    trainer = trainer_of(
        decoupled_step(dual, RANKS, precision), dual, RANKS, precision, cadence=Cadence(5, 60.0), checkpoints=kept
    )
    progress: Any = SimpleNamespace(step=lambda *_: 1.0, say=said.append)
    assert trainer.train((StepBatch(number) for number in range(6)), 0, progress).saved
    assert (waited, kept.steps(), said) == ([5], [5, 6], [])


def test_failed_write_is_reported_and_harms_nothing(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(1), 1)
    said: list[str] = []
    with small_files(10_000):
        assert not save(kept, trained(2), 2, said.append)
    (text,) = said
    assert "step 2 could not be written" in text
    assert os.strerror(errno.EFBIG) in text
    assert str(tmp_path) in text
    assert "step 1 is the last good one; free some space" in text
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]
    assert save(kept, trained(3), 3)
    assert kept.steps() == [1, 3]


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 5 * sum(t.nbytes for t in trained().tensors().values()) // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        kept = under(disk / "c", keep=3)
        assert save(kept, trained(1), 1)
        said: list[str] = []
        assert not all(save(kept, trained(step), step, said.append) for step in (2, 3))
        assert os.strerror(errno.ENOSPC) in said[0]
        assert not list((disk / "c").glob(".*"))  # its space is free again
        restored = trained(9)
        last = kept.restore_newest(restored, print)
        assert last in (1, 2)
        assert equal(restored, trained(last))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_failed_completion_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(1), 1)

    def broken(_path: Path, _values: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint_folder, "write_json", broken)
    said: list[str] = []
    assert not save(kept, trained(2), 2, said.append)
    assert "Input/output error" in said[0]
    assert "check that disk" in said[0]
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]


def test_leftovers_of_a_killed_save_are_cleared(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(1), 1)
    (tmp_path / "c" / ".step-00000002.part").mkdir()
    kept.clear_leftovers()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]


def _sharded() -> TrainingState:
    dual = model()
    scalars = {p for p in dual.parameters() if p.dim() == 0}
    fully_shard(dual.image_tower)
    fully_shard(dual, ignored_params=scalars)
    return of(dual)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def on_two_ranks(ranks: Ranks, folder: Path) -> dict[str, object]:
    """Everything that needs a group, in one: starting it is what costs."""
    torch.manual_seed(0)
    found: dict[str, object] = {}
    plain = under(folder / "plain", ranks=ranks)
    save(plain, trained(1), 1)

    sharded = _sharded()
    found["resharded"] = plain.restore_newest(sharded, print)
    whole = {name: _whole(tensor) for name, tensor in sharded.tensors().items()}
    found["as saved"] = all(torch.equal(whole[name], tensor) for name, tensor in trained(1).tensors().items())
    found["sharded"] = sum(isinstance(tensor, DTensor) for tensor in sharded.tensors().values())

    for parameter in sharded.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sharded.optimiser.step()
    parts = under(folder / "sharded", ranks=ranks)
    save(parts, sharded, 2)
    found["stepped"] = {name: _whole(tensor) for name, tensor in sharded.tensors().items()}
    found["full"] = full_weights(sharded.model)

    said: list[str] = []
    with small_files(10_000 if ranks.rank == 1 else resource.RLIM_INFINITY):
        found["saved"] = save(plain, trained(2), 2, said.append)
    found["said"] = said

    save(plain, trained(3), 3)
    if ranks.rank == 1:  # one rank alone cannot read the newest one
        plain.path = lambda step: folder / "nowhere" if step == 3 else Checkpoints.path(plain, step)  # type: ignore[method-assign]
    said = []
    restored = trained(9)
    found["agreed"] = plain.restore_newest(restored, said.append)
    found["agreed as saved"] = equal(restored, trained(1))
    found["passed over"] = said
    return found


def test_two_ranks_with_and_without_sharding(tmp_path: Path) -> None:
    results = run_group(2, on_two_ranks, tmp_path)
    for result in results:
        assert result["resharded"] == 1
        assert result["as saved"]
        assert result["sharded"] > 50
        assert result["saved"] is False
        assert result["agreed"] == 1
        assert result["agreed as saved"]
    first, second = results
    assert first["said"] == []
    assert second["said"][0].startswith("rank 1: checkpoint of step 2 could not be written")
    assert first["passed over"] == []
    assert "rank 1: checkpoint of step 3 is passed over" in second["passed over"][0]
    assert not list(tmp_path.glob("plain/.*"))

    # What two ranks wrote, one reads: plain and sharded.
    restored = trained(9)
    assert under(tmp_path / "plain").restore_newest(restored, print) == 3
    assert equal(restored, trained(3))
    assert under(tmp_path / "sharded").restore_newest(restored, print) == 2
    stepped = first["stepped"]
    assert all(torch.equal(stepped[name], tensor) for name, tensor in restored.tensors().items())
    assert second["full"] == {}
    weights = restored.model.state_dict()
    assert first["full"].keys() == weights.keys()
    assert all(torch.equal(first["full"][name], tensor) for name, tensor in weights.items())

    # The shares are about equal, the files plain safetensors, and PyTorch reads them by itself.
    folder = tmp_path / "plain" / "step-00000003"
    assert sorted(path.name for path in folder.iterdir()) == [shard_name(0, 2), shard_name(1, 2), "state.json"]
    sizes = [(folder / shard_name(rank, 2)).stat().st_size for rank in (0, 1)]
    assert max(sizes) < 1.2 * min(sizes)
    assert json.loads((folder / "state.json").read_text())["step"] == 3
    names = []
    for rank in (0, 1):
        with safe_open(folder / shard_name(rank, 2), framework="pt") as file:
            names += list(file.keys())
    assert sorted(names) == sorted(trained().tensors())
    read = {name: torch.zeros_like(tensor) for name, tensor in trained().tensors().items()}
    load(read, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert all(torch.equal(read[name], tensor) for name, tensor in trained(3).tensors().items())

    # A lost file is noticed, whole tensors and parts alike.
    for name in ("plain/step-00000003", "sharded/step-00000002"):
        (tmp_path / name / shard_name(1, 2)).unlink()
        said: list[str] = []
        under((tmp_path / name).parent).restore_newest(trained(9), said.append)
        assert "is passed over" in said[0]
