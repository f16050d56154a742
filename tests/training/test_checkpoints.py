"""Checkpoints are whole or absent, and a bad disk harms none of the good ones."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from test_steps import model

from zerovl.training import checkpoints as module
from zerovl.training.checkpoints import Checkpoints, TrainingState


def state(seed: int = 0) -> TrainingState:
    dual = model()
    optimiser = torch.optim.AdamW(dual.parameters(), fused=True)
    generator = torch.Generator().manual_seed(seed)
    for parameter in dual.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimiser.step()
    return TrainingState(dual, optimiser, torch.amp.GradScaler("cpu", enabled=False))


def equal(a: TrainingState, b: TrainingState) -> bool:
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_round_trip_and_keep(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 3):
        kept.save(state(step), step)
    assert kept.steps() == [2, 3]
    restored = state(9)
    assert kept.restore_newest(restored, print) == 3
    assert equal(restored, state(3))
    assert not equal(restored, state(9))


def test_new_optimiser_is_restored_whole(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", keep=2)
    kept.save(state(4), 4)
    dual = model()
    optimiser = torch.optim.AdamW(dual.parameters(), fused=True)
    fresh = TrainingState(dual, optimiser, torch.amp.GradScaler("cpu", enabled=False))
    kept.restore_newest(fresh, print)
    assert equal(fresh, state(4))
    for trained in (fresh, expected := state(4)):
        for parameter in trained.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        trained.optimiser.step()
    assert equal(fresh, expected)


def test_full_disk_is_reported_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(tmp_path / "c", keep=2)
    kept.save(state(1), 1)

    def full(tensors: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    said: list[str] = []
    assert not kept.try_save(state(2), 2, said.append)
    assert "step 2" in said[0]
    assert "step 1 is the last good one" in said[0]
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]


def test_damaged_newest_is_passed_over_and_named(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", keep=3)
    kept.save(state(1), 1)
    kept.save(state(2), 2)
    file = kept.path(2) / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    (tmp_path / "c" / ".step-00000003.part").mkdir()
    said: list[str] = []
    restored = state(9)
    assert kept.restore_newest(restored, said.append) == 1
    assert "step 2 is passed over" in said[0]
    assert equal(restored, state(1))


def test_unreadable_newer_ones_make_way_for_what_training_saves(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", keep=2)
    for step in (2, 3):
        kept.save(state(step), step)
        (kept.path(step) / "state.safetensors").write_bytes(b"broken")
    restored = state(9)
    assert kept.restore_newest(restored, lambda _: None) == 0
    assert equal(restored, state(9))  # a refused checkpoint leaves nothing behind
    kept.save(state(1), 1)
    assert kept.steps() == [1]
    kept.save(state(2), 2)
    assert kept.restore_newest(restored, print) == 2
    assert equal(restored, state(2))


def test_a_parameter_that_never_moved_is_restored_too(tmp_path: Path) -> None:
    def partly_moved() -> TrainingState:
        dual = model()
        optimiser = torch.optim.AdamW(dual.parameters(), fused=True)
        for name, parameter in dual.named_parameters():
            parameter.grad = None if name == "text_projection.weight" else torch.ones_like(parameter)
        optimiser.step()
        return TrainingState(dual, optimiser, torch.amp.GradScaler("cpu", enabled=False))

    kept = Checkpoints(tmp_path / "c", keep=1)
    kept.save(partly_moved(), 5)
    restored = state(9)
    assert kept.restore_newest(restored, print) == 5
    assert equal(restored, partly_moved())


def test_leftovers_of_a_killed_save_are_cleared(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", keep=1)
    kept.save(state(1), 1)
    (tmp_path / "c" / ".step-00000002.part").mkdir()
    kept.clear_leftovers()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]
