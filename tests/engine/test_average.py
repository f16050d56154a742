"""The average of the weights: its closed form, its place in checkpoints, sharded as whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tests.support.rank_groups import run_group
from tests.support.towers import RANKS, model
from zerovl.distributed.ranks import Ranks
from zerovl.engine.average import ExponentialAverage, LastWeights
from zerovl.engine.checkpoint_folder import checkpoint_path
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.model_options import prepare_model
from zerovl.engine.state import TrainingState, full_weights
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import MachineParams

DECAY = 0.15


def moved(dual: DualEncoder, number: int) -> None:
    """Weights of a step, each another multiple of its first one."""
    with torch.no_grad():
        for place, parameter in enumerate(dual.parameters()):
            parameter.copy_(parameter * (1 + 0.1 * number + 0.01 * (place % 7)))


def state_of(dual: DualEncoder, decay: float = DECAY) -> TrainingState:
    average = ExponentialAverage(dual, decay) if decay else LastWeights()
    scalars = [p for p in dual.parameters() if p.dim() == 0]
    groups = [{"params": scalars}, {"params": [p for p in dual.parameters() if p.dim()]}]
    return TrainingState(dual, torch.optim.AdamW(groups), torch.amp.GradScaler("cpu", enabled=False), average)


def averaged(state: TrainingState) -> dict[str, Tensor]:
    with state.average.applied():
        return {name: tensor.clone() for name, tensor in full_weights(state.model).items()}


def test_closed_form_with_its_warm_up() -> None:
    dual = model("test_resnet")
    dual.freeze("text")
    average = ExponentialAverage(dual, DECAY)
    name, statistic = "image_projection.weight", next(n for n, _ in dual.named_buffers() if "running_mean" in n)
    seen = [dict(dual.state_dict())[name].clone()], [dict(dual.state_dict())[statistic].clone()]
    for number in range(3):
        moved(dual, number)
        dual.get_buffer(statistic).add_(number + 1.0)
        average.update()
        for values, key in zip(seen, (name, statistic), strict=True):
            values.append(dual.state_dict()[key].clone())
    first, second, third = 1 / 10, DECAY, DECAY  # 2 / 11 and 3 / 12 are above
    with average.applied():
        for (start, one, two, three), key in zip(seen, (name, statistic), strict=True):
            expected = first * start + (1 - first) * one
            expected = second * expected + (1 - second) * two
            expected = third * expected + (1 - third) * three
            torch.testing.assert_close(dual.state_dict()[key], expected)
    frozen = {n for n, _ in dual.text_tower.named_parameters()}
    assert not any(key.removeprefix("average.text_tower.") in frozen for key in average.tensors())


def test_the_weights_come_back_bit_for_bit() -> None:
    dual = model()
    average = ExponentialAverage(dual, DECAY)
    moved(dual, 1)
    average.update()
    before = {name: tensor.clone() for name, tensor in dual.state_dict().items()}
    with average.applied():
        assert not torch.equal(dual.image_projection.weight, before["image_projection.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in dual.state_dict().items())


def saved(folder: Path, state: TrainingState, step: int, ranks: Ranks = RANKS) -> Checkpoints:
    kept = Checkpoints(folder, 2, 0, ranks)
    kept.begin(state, step, print)
    assert kept.finish(print)
    return kept


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    through = state_of(model())
    for number in range(2):
        moved(through.model, number)
        through.average.update()
    kept = saved(tmp_path, through, 2)
    resumed = state_of(model())
    moved(resumed.model, 9)
    assert kept.restore_newest(resumed, pytest.fail) == 2
    for state in (through, resumed):
        moved(state.model, 3)
        state.average.update()
    left, right = through.tensors(), resumed.tensors()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_checkpoint_without_average_begins_one(tmp_path: Path) -> None:
    """Of an older run, or one that kept none: only to go on from with other settings."""
    older = state_of(model(), decay=0.0)
    moved(older.model, 4)
    kept = saved(tmp_path, older, 3)
    state = state_of(model())
    state.average.update()
    said: list[str] = []
    assert kept.restore_newest(state, said.append) == 0
    assert "missing average." in said[0]
    kept.restore_other(state, checkpoint_path(tmp_path, 3), 3)
    assert int(state.average.tensors()["average_updates"]) == 0
    expected = full_weights(older.model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in averaged(state).items())


def test_an_average_that_is_not_wanted_is_left(tmp_path: Path) -> None:
    state = state_of(model())
    kept = saved(tmp_path, state, 3)
    plain = state_of(model(), decay=0.0)
    moved(plain.model, 2)
    kept.restore_other(plain, checkpoint_path(tmp_path, 3), 3)
    expected = full_weights(state.model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in full_weights(plain.model).items())


def sharded(ranks: Ranks, folder: str) -> tuple[bool, dict[str, Tensor]]:
    """Two updates, a checkpoint, and a resume of a new model from it; the average whole, on rank 0."""
    states = []
    for _ in range(2):
        dual = model(embed_dim=18)
        prepare_model(dual, [], MachineParams(shard_model=True), ranks)
        states.append(state_of(dual))
    first, second = states
    for number in range(2):
        moved(first.model, number)
        first.average.update()
    kept = saved(Path(folder), first, 2, ranks)
    assert kept.restore_newest(second, print) == 2
    split = any(isinstance(tensor, DTensor) for tensor in second.average.tensors().values())
    return split, averaged(second)


def test_sharded_it_is_the_same(tmp_path: Path) -> None:
    whole = state_of(model(embed_dim=18))
    for number in range(2):
        moved(whole.model, number)
        whole.average.update()
    expected = averaged(whole)
    (split, found), _ = run_group(2, sharded, str(tmp_path))
    assert split
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
