"""Checkpoints are whole or absent, on any number of ranks, and a bad disk harms none of the good ones."""

import errno
import json
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, load
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.support.rank_groups import run_group
from tests.support.towers import RANKS, model
from zerovl.distributed.ranks import Ranks
from zerovl.engine import checkpoints as module
from zerovl.engine.checkpoint_files import shard_name
from zerovl.engine.checkpoints import Checkpoints, SavedOn
from zerovl.engine.state import TrainingState, full_weights
from zerovl.model.dual_encoder import DualEncoder


def of(dual: DualEncoder) -> TrainingState:
    scalars = [p for p in dual.parameters() if p.dim() == 0]  # FSDP2 shards none, and an update takes one kind
    groups = [{"params": scalars}, {"params": [p for p in dual.parameters() if p.dim()]}]
    optimiser = torch.optim.AdamW(groups, fused=True)
    return TrainingState(dual, optimiser, torch.amp.GradScaler("cpu", init_scale=4.0))


def trained(seed: int = 0) -> TrainingState:
    """A state after one step on gradients of that seed."""
    state = of(model())
    generator = torch.Generator().manual_seed(seed)
    for parameter in state.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimiser.step()
    return state


def equal(a: TrainingState, b: TrainingState) -> bool:
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def under(folder: Path, keep: int = 2, keep_every: int = 0, ranks: Ranks = RANKS) -> Checkpoints:
    return Checkpoints(folder, keep, keep_every, ranks)


def save(kept: Checkpoints, state: TrainingState, step: int, report: Callable[[str], None] = print) -> bool:
    kept.begin(state, step, report)
    return kept.finish(report)


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Writes past `size` bytes of any file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


def test_new_optimiser_is_restored_whole(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(4), 4)
    fresh = of(model())
    kept.restore_newest(fresh, print)
    assert equal(fresh, trained(4))
    for state in (fresh, expected := trained(4)):
        for parameter in state.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimiser.step()
    assert equal(fresh, expected)


def test_loss_scale_is_restored(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    state = trained()
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 0.1, "_growth_tracker": 7})
    save(kept, state, 1)
    fresh = of(model())
    kept.restore_newest(fresh, print)
    assert fresh.scaler.state_dict() == state.scaler.state_dict()
    assert fresh.scaler.state_dict()["scale"] == 0.1


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

    monkeypatch.setattr(module, "write_json", broken)
    said: list[str] = []
    assert not save(kept, trained(2), 2, said.append)
    assert "Input/output error" in said[0]
    assert "check that disk" in said[0]
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]


def _truncate(folder: Path) -> None:
    file = folder / shard_name(0, 1)
    file.write_bytes(file.read_bytes()[:-100])


def _garble(folder: Path) -> None:
    (folder / shard_name(0, 1)).write_bytes(b"\xff" * 64)


def _lose_shard(folder: Path) -> None:
    (folder / shard_name(0, 1)).unlink()


def _lose_values(folder: Path) -> None:
    (folder / "state.json").unlink()


def _cut_values(folder: Path) -> None:
    (folder / "state.json").write_text('{"step": 2, ')


def _empty_values(folder: Path) -> None:
    (folder / "state.json").write_text('{"step": 2}')


def _other_step(folder: Path) -> None:
    (folder / "state.json").write_text((folder / "state.json").read_text().replace('"step": 2', '"step": 3'))


@pytest.mark.parametrize(
    "damage", [_truncate, _garble, _lose_shard, _lose_values, _cut_values, _empty_values, _other_step]
)
def test_damaged_newest_is_passed_over_and_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(1), 1)
    save(kept, trained(2), 2)
    damage(kept.path(2))
    said: list[str] = []
    restored = trained(9)
    assert kept.restore_newest(restored, said.append) == 1
    assert "step 2 is passed over" in said[0]
    assert str(kept.path(2)) in said[0]
    assert equal(restored, trained(1))


def test_another_model_is_passed_over_and_the_difference_named(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(1), 1)
    said: list[str] = []
    deeper = of(model(depth=2))
    before = {name: tensor.clone() for name, tensor in deeper.tensors().items()}
    assert kept.restore_newest(deeper, said.append) == 0
    assert "missing model.image_tower.blocks.1" in said[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in deeper.tensors().items())


def test_unreadable_newer_ones_make_way_for_what_training_saves(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    for step in (2, 3):
        save(kept, trained(step), step)
        _garble(kept.path(step))
    restored = trained(9)
    assert kept.restore_newest(restored, lambda _: None) == 0
    assert equal(restored, trained(9))  # a refused checkpoint leaves nothing behind
    save(kept, trained(1), 1)
    assert kept.steps() == [1]
    assert {path.name for path in kept.folder.glob("passed*")} == {"passed-over-00000002", "passed-over-00000003"}
    save(kept, trained(2), 2)
    assert kept.restore_newest(restored, print) == 2
    assert equal(restored, trained(2))


def test_a_parameter_that_never_moved_is_restored_too(tmp_path: Path) -> None:
    def partly_moved() -> TrainingState:
        state = of(model())
        for name, parameter in state.model.named_parameters():
            parameter.grad = None if name == "text_projection.weight" else torch.ones_like(parameter)
        state.optimiser.step()
        return state

    kept = under(tmp_path / "c")
    save(kept, partly_moved(), 5)
    restored = trained(9)
    assert kept.restore_newest(restored, print) == 5
    assert equal(restored, partly_moved())


def test_leftovers_of_a_killed_save_are_cleared(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(1), 1)
    (tmp_path / "c" / ".step-00000002.part").mkdir()
    kept.clear_leftovers()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]


class Compiled(nn.Module):
    """As `torch.compile` names things, without the ten seconds of importing it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def test_wrappers_do_not_change_names(tmp_path: Path) -> None:
    kept = under(tmp_path / "c")
    save(kept, trained(1), 1)
    wrapped = of(model())
    wrapped.model.image_tower = Compiled(wrapped.model.image_tower)
    assert kept.restore_newest(wrapped, print) == 1
    assert equal(wrapped, trained(1))
    assert full_weights(wrapped.model).keys() == model().state_dict().keys()


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
