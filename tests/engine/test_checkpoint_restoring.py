"""What is restored is what was saved; a checkpoint that cannot be read is passed over and named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.checkpoint_states import equal, of, save, trained, under
from tests.support.towers import model
from zerovl.engine.checkpoint_files import shard_name
from zerovl.engine.state import TrainingState, full_weights


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
