"""FSDP2 on a GPU, with a mesh of one rank: gathers in float32 and in 16 bits against a model that is not split."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tests.support.device_runs import gradient_error, precision_of, ragged_batch
from tests.support.towers import decoupled_step, gradients, model, plain_step, settings
from zerovl.distributed.collectives import ProcessGroup
from zerovl.distributed.ranks import Ranks
from zerovl.engine.clipping import clip_gradients
from zerovl.engine.optimiser import make_optimiser
from zerovl.engine.sharding import ShardedGradientSum, ShardedGradScaler, gather_policy, shard
from zerovl.engine.state import full_weights
from zerovl.engine.steps import DecoupledStep, PlainStep
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix

pytestmark = pytest.mark.gpu

MIX = Mix("image", 0.3)
STEPS, CLIP = 3, 0.5
# Of what the steps changed, over all weights in float32. AdamW gives weights whose gradients are rounding alone, such
# as the bias of attention's keys, steps of full length in any direction; weights that did not learn would be off by 1.
LEARNT = 0.05


@dataclass(frozen=True)
class Case:
    """How weights are gathered and towers compute, and how far gradients (by norms) and losses may be off."""

    gathers: str
    precision: str
    gradient: float
    loss: float


# Gathers in 16 bits round the weights of embeddings and norms too, and what blocks hand on: errors of some 2^-8.
CASES = [
    Case("float32", "float32", 2e-5, 1e-5),
    Case("float32", "bf16", 1e-2, 1e-3),
    Case("low", "bf16", 6e-2, 2e-2),
    Case("low", "fp16", 2e-2, 5e-3),
]


@pytest.fixture
def sharded_ranks(process_group: None, device: torch.device) -> Ranks:
    return Ranks(0, 1, device, ProcessGroup())


def towers(device: torch.device) -> DualEncoder:
    return model(depth=2, embed_dim=64).to(device).train()


def split_towers(case: Case, ranks: Ranks) -> DualEncoder:
    dual = towers(ranks.device)
    shard(dual, ranks, gather_policy(case.gathers, precision_of(case.precision, ranks.device)))
    return dual


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: its.full_tensor() if isinstance(its, DTensor) else its for name, its in tensors.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.gathers}-{case.precision}")
@pytest.mark.parametrize("kind", [plain_step, decoupled_step])
def test_gradients_are_those_of_a_whole_model(
    kind: Callable[..., PlainStep | DecoupledStep],
    case: Case,
    sharded_ranks: Ranks,
    device: torch.device,
    one_rank: Ranks,
) -> None:
    parts, dual = ragged_batch(device), towers(device)
    expected_loss = kind(dual, one_rank, precision_of(case.precision, device), 3)(parts, MIX, 7)

    split = split_towers(case, sharded_ranks)
    computed_in: set[torch.dtype] = set()
    for block in split.image_tower.blocks:  # type: ignore[union-attr]
        block.mlp.fc1.register_forward_pre_hook(lambda layer, _inputs: computed_in.add(layer.weight.dtype))
    sums = ShardedGradientSum(split, sharded_ranks)
    loss = kind(split, sharded_ranks, precision_of(case.precision, device), 3, sums)(parts, MIX, 7)
    assert computed_in == {precision_of(case.precision, device).dtype if case.gathers == "low" else torch.float32}
    assert {p.dtype for p in split.parameters()} == {p.grad.dtype for p in split.parameters() if p.grad is not None}
    torch.testing.assert_close(loss, expected_loss, rtol=case.loss, atol=0.0)
    assert gradient_error(whole(gradients(split)), gradients(dual)) <= case.gradient


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.gathers}-{case.precision}")
def test_steps_of_the_optimiser(case: Case, sharded_ranks: Ranks, device: torch.device, one_rank: Ranks) -> None:
    """With clipping, the fused AdamW on shards, and the weights that a bundle gets."""
    train, _ = settings(lr=1e-2)
    parts, found, norms, weights = ragged_batch(device), [], [], []
    split = split_towers(case, sharded_ranks)
    for dual, ranks in ((towers(device), one_rank), (split, sharded_ranks)):
        precision, sums = precision_of(case.precision, device), None
        if ranks is sharded_ranks:
            sums = ShardedGradientSum(dual, ranks)
            precision.scaler = ShardedGradScaler(ranks, enabled=case.precision == "fp16")
            precision.scaler.load_state_dict(precision_of(case.precision, device).scaler.state_dict())
        step, optimiser = decoupled_step(dual, ranks, precision, 3, sums), make_optimiser(dual, train)
        losses, clipped = [], []
        for number in range(STEPS):
            optimiser.zero_grad(set_to_none=True)
            losses.append(float(step(parts, MIX, number)))
            precision.scaler.unscale_(optimiser)
            clipped.append(float(clip_gradients(dual, CLIP, ranks)))
            precision.scaler.step(optimiser)
            precision.scaler.update()
        found.append(losses)
        norms.append(clipped)
        weights.append(full_weights(dual))
    assert found[1] == pytest.approx(found[0], rel=10 * case.loss)
    assert norms[1] == pytest.approx(norms[0], rel=10 * case.gradient)
    assert min(norms[0]) > CLIP  # something was clipped
    assert len(set(found[0])) == STEPS  # something was learnt in between
    assert weights[1].keys() == weights[0].keys()
    assert all(its.dtype == torch.float32 and its.device.type == "cpu" for its in weights[1].values())
    trained = whole(split.state_dict())
    assert trained.keys() == weights[1].keys()
    assert [name for name, its in trained.items() if not torch.equal(its.cpu(), weights[1][name])] == []
    if case.gathers == case.precision == "float32":
        before = full_weights(towers(device))
        expected, learnt = (torch.cat([(its[name] - before[name]).flatten() for name in before]) for its in weights)
        assert (learnt - expected).norm() <= LEARNT * expected.norm()
