"""The tiled sigmoid loss against its formula and against the dense one, on one rank and on several."""

import math

import pytest
import torch
from torch import Tensor

from tests.support.pairs import embeddings, gradients, mixed_targets, relative_errors
from tests.support.rank_groups import run_group
from tests.support.thread_ranks import ThreadRank, on_ranks
from tests.support.towers import CPU, MicroInputs, batch, model
from tests.support.towers import gradients as gradients_of
from zerovl.distributed.ranks import Ranks
from zerovl.engine.gradients import gradient_sum
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep, StepContext
from zerovl.objective.dense import dense_sigmoid_loss
from zerovl.objective.loss import SigmoidLoss
from zerovl.objective.mixup import Mix
from zerovl.objective.sigmoid import SigmoidSweep, sigmoid_loss
from zerovl.objective.targets import Targets


def scalars(temperature: float, bias: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    temperature_, bias_ = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (temperature, bias))
    return temperature_, bias_


def test_the_dense_loss_is_the_formula() -> None:
    image, text = embeddings(5)
    expected = 0.0
    for i in range(5):
        for j in range(5):
            z = 1 if i == j else -1
            logit = 10 * float(image[i] @ text[j]) - 9.5
            expected -= math.log(1 / (1 + math.exp(-z * logit))) / 5
    t, bias = scalars(0.1, -9.5)
    assert float(dense_sigmoid_loss(image, text, t, bias, Targets())) == pytest.approx(expected, rel=1e-12)


def tiled_and_dense(
    sweep: SigmoidSweep | None, image: Tensor, text: Tensor, temperature: float, bias: float, targets: Targets
) -> tuple[list[Tensor], list[Tensor]]:
    """Loss and its gradients (image, text, temperature, bias), tiled and dense in float64."""
    own = scalars(temperature, bias, torch.promote_types(image.dtype, torch.float32))
    found = gradients(sigmoid_loss(image, text, *own, targets, sweep=sweep), image, text, *own)
    double = [tensor.detach().double().requires_grad_() for tensor in (image, text, *own)]
    return found, gradients(dense_sigmoid_loss(*double, targets), *double)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 65])
@pytest.mark.parametrize("tile", [1, 5, 64, 1024])
@pytest.mark.parametrize(("temperature", "bias"), [(0.1, -10.0), (0.01, 3.0)])
@pytest.mark.parametrize("mixed", [False, True])
def test_tiled_equals_dense(batch_size: int, tile: int, temperature: float, bias: float, mixed: bool) -> None:
    targets = mixed_targets(batch_size) if mixed else Targets()
    sweep = SigmoidSweep(torch.float64, tile)
    found, expected = tiled_and_dense(sweep, *embeddings(batch_size), temperature, bias, targets)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("temperature", [0.001, 0.0113, 0.1, 0.5])
@pytest.mark.parametrize("bias", [-10.0, 0.0])
def test_float32_is_stable_over_the_whole_clamp(temperature: float, bias: float) -> None:
    image, text = embeddings(96, torch.float32)
    sweep = SigmoidSweep(torch.float32, 32)
    found, expected = tiled_and_dense(sweep, image, text, temperature, bias, mixed_targets(96))
    assert all(value.isfinite().all() for value in found)
    assert max(relative_errors(found, expected)) < 2e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_rows_are_multiplied_and_summed_in_float32(dtype: torch.dtype) -> None:
    image, text = embeddings(64, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = tiled_and_dense(None, image, text, 0.1, -10.0, mixed_targets(64))
    assert [value.dtype for value in found] == [torch.float32, dtype, dtype, torch.float32, torch.float32]
    loss, *errors = relative_errors(found, expected)
    assert max(loss, errors[2], errors[3]) < 1e-5
    assert max(errors[:2]) < torch.finfo(dtype).eps / 2 + 1e-5


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_ranks_hold_rows_and_see_all_columns(world_size: int, mixed: bool) -> None:
    rows = 43
    image, text = embeddings(rows * world_size)
    local = mixed_targets(rows) if mixed else Targets()
    whole = local
    if local.partner is not None:
        whole = Targets(local.weight, torch.cat([local.partner + rank * rows for rank in range(world_size)]))
    t, bias = scalars(0.1, -8.0)
    loss, *expected = gradients(dense_sigmoid_loss(image, text, t, bias, whole), image, text, t, bias)

    def one_rank(rank: ThreadRank) -> list[Tensor]:
        own = [e.detach()[rank.rank * rows :][:rows].clone().requires_grad_() for e in (image, text)]
        leaves = scalars(0.1, -8.0)
        value = sigmoid_loss(*own, *leaves, local, rank, SigmoidSweep(torch.float64, 32))  # type: ignore[arg-type]
        return gradients(value, *own, *leaves)

    losses, *found = zip(*on_ranks(world_size, one_rank), strict=True)
    for value in losses:
        torch.testing.assert_close(value, loss, rtol=1e-11, atol=0)
    whole_of = torch.cat(found[0]), torch.cat(found[1]), torch.stack(found[2]).sum(), torch.stack(found[3]).sum()
    for a, b in zip(whole_of, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def _step_on_a_rank(ranks: Ranks, kind: str) -> tuple[float, dict[str, Tensor]]:
    """A step over the rank's part of four micro-batches; dropout off, for masks are drawn by the rank."""
    dual = model(logit_bias=-10.0).double().eval()
    context = StepContext(
        dual, ranks, Precision("float32", CPU), SigmoidLoss(), 0, gradient_sum(dual, ranks.collectives)
    )
    parts: list[MicroInputs] = batch()
    share = len(parts) // ranks.world_size
    step = PlainStep(context) if kind == "plain" else DecoupledStep(context, kept_graphs=1)
    loss = step(parts[ranks.rank * share :][:share], Mix("text", 0.4), 0)
    return float(loss), gradients_of(dual)


def test_decoupled_on_two_ranks_equals_plain_on_one() -> None:
    (alone,) = run_group(1, _step_on_a_rank, "plain")
    for loss, found in run_group(2, _step_on_a_rank, "decoupled"):
        assert loss == pytest.approx(alone[0], rel=1e-12)
        assert found.keys() == alone[1].keys()
        assert {"temperature", "logit_bias"} <= found.keys()
        for name, expected in alone[1].items():
            torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)
