"""A model split over two ranks trains as a whole one does."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.rank_groups import run_group
from tests.support.sharded_towers import MIX, one_step, still, whole
from tests.support.towers import batch, decoupled_step, gradients, model, plain_step
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.clipping import clip_gradients
from zerovl.engine.model_options import prepare_model
from zerovl.engine.optimiser import make_optimiser
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import (
    ShardedGradientSum,
    ShardedGradScaler,
    is_sharded,
)
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix

CPU = torch.device("cpu")
ONE = Ranks(0, 1, CPU, OneRank())


class Collectives(TorchDispatchMode):
    """Counts a rank's collectives, and the bytes that gathers give it, by type.

    PyTorch's profiler would count them too, but leaves a thread behind, and a rank died of a signal after it once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Any] = Counter()
        self.gathered: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func] += 1
        if func is torch.ops.c10d._allgather_base_.default:
            self.gathered[args[0].dtype] += args[0].nbytes
        return func(*args, **(kwargs or {}))


def step_and_reductions(ranks: Ranks) -> tuple[dict[str, Tensor], int]:
    """What `one_step` returns, and how often it reduced gradients over the ranks."""
    with Collectives() as collectives:
        return one_step(ranks, decoupled_step), collectives.calls[torch.ops.c10d._reduce_scatter_base_.default]


def gradients_with_kept(ranks: Ranks, kept_graphs: int) -> list[dict[str, Tensor]]:
    """Gradients of two steps of three micro-batches, through copies of the weights in 16 bits."""
    dual, train, machine = still(shard_model=True)
    prepare_model(dual, train.freeze, machine, ranks, "bf16")
    dual.train()
    sums = ShardedGradientSum(dual, ranks)
    step = decoupled_step(dual, ranks, Precision("bf16", CPU), 0, sums, kept_graphs)
    local = batch(6)[3 * ranks.rank : 3 * ranks.rank + 3]
    found = []
    for number in range(2):
        dual.zero_grad(set_to_none=True)
        step(local, Mix("image", 0.3 + 0.4 * number), number)
        found.append({name: whole(gradient).clone() for name, gradient in gradients(dual).items()})
    return found


def several_steps(ranks: Ranks, precision: str, clip_norm: float, gathers: str = "float32") -> list[float]:
    dual, train, machine = still(shard_model=True, shard_gathers=gathers)
    prepare_model(dual, train.freeze, machine, ranks, precision)
    dual.train()
    optimiser = make_optimiser(dual, train)
    mode = Precision(precision, CPU)
    scoring = mode if gathers == "low" else Precision("float32", CPU)
    sums = ShardedGradientSum(dual, ranks) if is_sharded(dual) else None
    step = decoupled_step(dual, ranks, mode, 0, gradients=sums)
    parts = batch()
    local = parts[2 * ranks.rank : 2 * ranks.rank + 2] if ranks.world_size == 2 else parts
    found = []
    for number in range(4):
        optimiser.zero_grad(set_to_none=True)
        found.append(float(step(local, MIX, number)))
        if clip_norm:
            found.append(float(clip_gradients(dual, clip_norm, ranks)))
        optimiser.step()
        with scoring.autocast():
            score(dual)
    assert {p.dtype for p in dual.parameters()} == {torch.float32}
    return found


def steps_and_bytes(ranks: Ranks, gathers: str) -> tuple[list[float], Counter[torch.dtype]]:
    """Losses of four steps, and what they and the scoring after each gather."""
    with Collectives() as collectives:
        return several_steps(ranks, "bf16", 0.0, gathers), collectives.gathered


def score(dual: DualEncoder) -> None:
    """As the loop does between steps; the optimiser's parameters must be those of the model afterwards."""
    names = {id(parameter) for parameter in dual.parameters()}
    dual.eval()
    with torch.no_grad():
        dual.encode_image(batch()[0].images)
        dual.encode_text(batch()[0].input_ids, batch()[0].attention_mask)
    dual.train()
    assert {id(parameter) for parameter in dual.parameters()} == names


def overflow(
    ranks: Ranks, clip_norm: float, where: set[int], gathers: str = "float32"
) -> tuple[list[float], list[bool]]:
    """fp16 with an overflow on the shards of `where` in the first step: scales, and whether weights moved."""
    dual, train, machine = still(shard_model=True, shard_gathers=gathers)
    prepare_model(dual, train.freeze, machine, ranks, "fp16")
    dual.train()
    optimiser = make_optimiser(dual, train)
    precision = Precision("fp16", CPU)
    precision.scaler = ShardedGradScaler(ranks, enabled=True)
    precision.scaler.load_state_dict({**precision.scaler.state_dict(), "scale": 128.0})  # as restoring does
    step = decoupled_step(dual, ranks, precision, 0, gradients=ShardedGradientSum(dual, ranks))
    local = batch()[2 * ranks.rank : 2 * ranks.rank + 2]
    scales, moved = [], []
    for number in range(2):
        before = full_state(dual)
        optimiser.zero_grad(set_to_none=True)
        step(local, MIX, number)
        if number == 0 and ranks.rank in where:
            dual.image_tower.blocks[0].mlp.fc1.weight.grad.to_local().fill_(torch.inf)  # type: ignore[union-attr]
        if clip_norm:
            precision.scaler.unscale_(optimiser)
            clip_gradients(dual, clip_norm, ranks)
        precision.scaler.step(optimiser)
        precision.scaler.update()
        scales.append(precision.scaler.get_scale())
        after = full_state(dual)
        moved.append(any(not torch.equal(before[name], after[name]) for name in before))
        assert all(bool(tensor.isfinite().all()) for tensor in after.values())
    return scales, moved


def full_state(dual: DualEncoder) -> dict[str, Tensor]:
    return {name: whole(p.detach()).clone() for name, p in dual.named_parameters()}


def on_ranks(ranks: Ranks) -> dict[str, Any]:
    torch.manual_seed(ranks.rank)
    whole_steps, whole_bytes = steps_and_bytes(ranks, "float32")
    low_steps, low_bytes = steps_and_bytes(ranks, "low")
    decoupled, reductions = step_and_reductions(ranks)
    return {
        "plain": one_step(ranks, plain_step),
        "decoupled": decoupled,
        "graph kept": one_step(ranks, partial(decoupled_step, kept_graphs=1)),
        "in 16 bits": [gradients_with_kept(ranks, kept_graphs) for kept_graphs in range(4)],
        "reductions": reductions,
        "frozen": one_step(ranks, decoupled_step, freeze=["image"]),
        "with others": one_step(ranks, decoupled_step, activation_checkpointing=True, channels_last=True),
        "steps": several_steps(ranks, "float32", 0.0),
        "clipped": several_steps(ranks, "float32", 0.05),
        "bf16": whole_steps,
        "bf16, low gathers": low_steps,
        "float32, low gathers": several_steps(ranks, "float32", 0.0, "low"),
        "bytes": [whole_bytes, low_bytes],
        "overflow, low gathers": overflow(ranks, 0.05, {1}, "low"),
        "overflow": overflow(ranks, 0.0, {1}),
        "overflow, clipped": overflow(ranks, 0.05, {1}),
        "overflow everywhere": overflow(ranks, 0.0, {0, 1}),
    }


@pytest.fixture(scope="module")
def group() -> list[dict[str, Any]]:
    return run_group(2, on_ranks)


@pytest.mark.parametrize(
    ("case", "frozen"),
    [("plain", []), ("decoupled", []), ("graph kept", []), ("frozen", ["image"]), ("with others", [])],
)
def test_gradients_are_those_of_a_whole_model(group: list[dict[str, Any]], case: str, frozen: list[str]) -> None:
    dual, train, machine = still(freeze=frozen)
    dual.double()
    prepare_model(dual, train.freeze, machine, ONE)
    loss = plain_step(dual.train(), ONE, Precision("float32", CPU), 0)(batch(), MIX, 0)
    expected = {"loss": loss, **gradients(dual)}
    for found in group:
        assert found[case].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[case][name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("kept_graphs", [1, 2, 3])
def test_kept_graphs_change_no_gradient_in_16_bits(group: list[dict[str, Any]], kept_graphs: int) -> None:
    """With all of them kept the sum over ranks waits for a backward that goes through a kept graph."""
    for found in group:
        kept, none = found["in 16 bits"][kept_graphs], found["in 16 bits"][0]
        for its, expected in zip(kept, none, strict=True):
            assert its.keys() == expected.keys()
            assert [name for name in expected if not torch.equal(its[name], expected[name])] == []
        assert any(not torch.equal(none[0][name], none[1][name]) for name in none[0])


def test_towers_are_reduced_once_a_step(group: list[dict[str, Any]]) -> None:
    assert [found["reductions"] for found in group] == [6, 6]  # 3 blocks, 2 towers, the loss


@pytest.mark.parametrize(
    ("case", "precision", "clip_norm", "tolerance"),
    [
        ("steps", "float32", 0.0, 1e-5),
        ("clipped", "float32", 0.05, 1e-4),
        ("bf16", "bf16", 0.0, 2e-2),
        ("bf16, low gathers", "bf16", 0.0, 2e-2),
    ],
)
def test_several_steps_have_the_losses_of_a_whole_model(
    group: list[dict[str, Any]], case: str, precision: str, clip_norm: float, tolerance: float
) -> None:
    expected = several_steps(ONE, precision, clip_norm)
    assert group[0][case] == group[1][case]
    assert group[0][case] == pytest.approx(expected, rel=tolerance)
    assert len(set(expected)) == len(expected)  # something was learnt in between


def test_gathers_in_16_bits_are_half_the_bytes(group: list[dict[str, Any]]) -> None:
    for found in group:
        whole, low = found["bytes"]
        assert set(whole) == {torch.float32}
        assert low[torch.float32] < 0.02 * whole[torch.float32]  # embeddings, for the loss
        assert 2 * low[torch.bfloat16] == whole[torch.float32] - low[torch.float32]
        assert found["float32, low gathers"] == found["steps"]  # float32 means float32


@pytest.mark.parametrize("case", ["overflow", "overflow, clipped", "overflow, low gathers", "overflow everywhere"])
def test_an_overflow_skips_the_step_on_all(group: list[dict[str, Any]], case: str) -> None:
    for found in group:
        scales, moved = found[case]
        assert scales == [64.0, 64.0]
        assert moved == [False, True]


def test_clipping_is_that_of_pytorch() -> None:
    for max_norm in (1e-3, 1e3):
        ours, theirs = model(), model()
        for dual in (ours, theirs):
            plain_step(dual.eval(), ONE, Precision("float32", CPU), 0)(batch(), MIX, 0)
        norm = clip_gradients(ours, max_norm, ONE)
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)), rel=1e-6)
        for name, gradient in gradients(theirs).items():
            torch.testing.assert_close(gradients(ours)[name], gradient, rtol=1e-6, atol=1e-12)
