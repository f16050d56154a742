"""Four ranks on two nodes, each with a copy of the model that its ranks split, train as one with a whole model does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tests.support.rank_groups import run_group
from tests.support.sharded_towers import still, whole
from tests.support.towers import batch, decoupled_step, gradients
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.clipping import clip_gradients
from zerovl.engine.model_options import options_without_effect, prepare_model
from zerovl.engine.optimiser import make_optimiser
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import ShardedGradientSum, ShardedGradScaler, is_sharded, part_size
from zerovl.engine.state import TrainingState, full_weights
from zerovl.errors import ZeroVLError
from zerovl.objective.mixup import Mix
from zerovl.params import MachineParams

CPU = torch.device("cpu")
ONE = Ranks(0, 1, CPU, OneRank())
MIX = Mix("image", 0.3)
NODE, WORLD, STEPS, CLIP = 2, 4, 3, 0.05
WITHIN = MachineParams(shard_model=True, shard_within="node")
Tensors = dict[str, Tensor]


def make_state(ranks: Ranks, machine: MachineParams) -> TrainingState:
    dual, train, _ = still()
    prepare_model(dual.double(), train.freeze, machine, ranks)
    precision = ShardedGradScaler(ranks, enabled=False)
    return TrainingState(dual.train(), make_optimiser(dual, train), precision)


def trained(ranks: Ranks, state: TrainingState) -> tuple[list[float], Tensors]:
    """Losses and clipped norms of some steps, and the whole gradient of the first."""
    dual, share = state.model, 8 // ranks.world_size
    parts = batch(8)[share * ranks.rank : share * (ranks.rank + 1)]
    sums = ShardedGradientSum(dual, ranks) if is_sharded(dual) else None
    step = decoupled_step(dual, ranks, Precision("float32", CPU), 0, sums)
    numbers: list[float] = []
    first: Tensors = {}
    for number in range(STEPS):
        state.optimiser.zero_grad(set_to_none=True)
        numbers.append(float(step(parts, MIX, number)))
        first = first or {name: whole(gradient).clone() for name, gradient in gradients(dual).items()}
        numbers.append(float(clip_gradients(dual, CLIP, ranks)))
        state.optimiser.step()
    return numbers, first


def all_whole(state: TrainingState) -> Tensors:
    return {name: whole(tensor).clone() for name, tensor in state.tensors().items()}


def on_two_nodes(ranks: Ranks, folder: str) -> dict[str, Any]:
    """Train within nodes, save, and go on from it in the same layout and split over all ranks."""
    state = make_state(ranks, WITHIN)
    weight: Any = state.model.image_tower.blocks[0].mlp.fc1.weight  # type: ignore[union-attr]
    numbers, first = trained(ranks, state)
    kept = Checkpoints(Path(folder), 2, 0, ranks)
    kept.begin(state, STEPS, print)
    assert kept.finish(print)
    found = {
        "mesh": weight.device_mesh.mesh.tolist(),
        "part": len(weight.to_local()) / len(weight),
        "numbers": numbers,
        "first": first,
        "state": all_whole(state),
        "bundle": full_weights(state.model),
    }
    for name, machine in (("node", WITHIN), ("all", MachineParams(shard_model=True))):
        again = make_state(ranks, machine)
        assert kept.restore_newest(again, print) == STEPS
        found[name] = all_whole(again)
    return found


on_two_nodes.node_size = NODE  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def group(folder: Path) -> list[dict[str, Any]]:
    return run_group(WORLD, on_two_nodes, str(folder))


def test_a_node_holds_a_whole_model(group: list[dict[str, Any]]) -> None:
    assert [found["mesh"] for found in group] == [[[0, 1], [2, 3]]] * WORLD
    assert [found["part"] for found in group] == [0.5] * WORLD


def test_gradients_and_steps_are_those_of_a_whole_model(group: list[dict[str, Any]]) -> None:
    state = make_state(ONE, MachineParams())
    numbers, first = trained(ONE, state)
    assert min(numbers[1::2]) > CLIP  # each step was clipped
    for found in group:
        assert found["numbers"] == pytest.approx(numbers, rel=1e-9)
        assert found["first"].keys() == first.keys()
        for name, gradient in first.items():
            torch.testing.assert_close(found["first"][name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    bundle, expected = group[0]["bundle"], full_weights(state.model)
    assert bundle.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(bundle[name], weight, rtol=1e-6, atol=1e-9, msg=name)


def test_copies_stay_equal(group: list[dict[str, Any]]) -> None:
    for found in group[1:]:
        assert all(torch.equal(tensor, group[0]["state"][name]) for name, tensor in found["state"].items())


@pytest.mark.parametrize("layout", ["node", "all"])
def test_a_checkpoint_is_read_in_another_layout(group: list[dict[str, Any]], layout: str) -> None:
    for found in group:
        assert found[layout].keys() == found["state"].keys()
        assert all(torch.equal(tensor, found["state"][name]) for name, tensor in found[layout].items())


def test_a_checkpoint_is_read_by_a_rank_alone(group: list[dict[str, Any]], folder: Path) -> None:
    state = make_state(ONE, MachineParams())
    assert Checkpoints(folder, 2, 0, ONE).restore_newest(state, print) == STEPS
    assert not any(isinstance(tensor, DTensor) for tensor in state.tensors().values())
    assert all(torch.equal(tensor, group[0]["state"][name]) for name, tensor in state.tensors().items())


class OnNodes(OneRank):
    """Ranks that would answer with the number of ranks of their node."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def gather(self, local: Tensor) -> Tensor:
        return local.new_tensor(self.sizes)


def ranks_on(sizes: list[int]) -> Ranks:
    return Ranks(0, len(sizes), CPU, OnNodes(sizes), node_size=sizes[0])


def test_nodes_share_a_model_where_they_have_as_many_ranks_each() -> None:
    assert part_size(WITHIN, ranks_on([2, 2, 2, 2])) == 2
    assert part_size(WITHIN, ranks_on([4, 4, 4, 4])) == 4
    assert part_size(MachineParams(shard_model=True), ranks_on([2, 2, 2, 2])) == 4
    unlike = "shard_within node: {} ranks on nodes of {} are not a multiple .* --nproc-per-node .*shard_within to all"
    with pytest.raises(ZeroVLError, match=unlike.format(6, "2, 4")):
        part_size(WITHIN, ranks_on([4, 4, 4, 4, 2, 2]))
    with pytest.raises(ZeroVLError, match=unlike.format(3, 2)):
        part_size(WITHIN, ranks_on([2, 2, 2]))
    with pytest.raises(ZeroVLError, match=r"each of 2 nodes has one rank, .* machine\.shard_model to false"):
        part_size(WITHIN, ranks_on([1, 1]))


def test_what_has_no_effect_is_said() -> None:
    dual, *_ = still()

    def notes(machine: MachineParams, ranks: Ranks) -> list[str]:
        return [note for note in options_without_effect(machine, dual, ranks) if "shard_within" in note]

    assert notes(WITHIN, ranks_on([2, 2, 2, 2])) == []
    assert "one node" in notes(WITHIN, ranks_on([2, 2]))[0]
    assert "shard_model false" in notes(MachineParams(shard_within="node"), ranks_on([2, 2, 2, 2]))[0]
