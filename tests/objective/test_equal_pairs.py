"""Pairs with an equal caption or picture as positives: the sparse sums against the whole matrix, for both losses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.support.pairs import embeddings, equal_identities, gradients, mixed_targets, relative_errors
from tests.support.rank_groups import run_group
from tests.support.thread_ranks import ThreadRank, on_ranks
from tests.support.towers import CPU, batch, model
from tests.support.towers import gradients as gradients_of
from zerovl.distributed.collectives import Collectives, OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.gradients import gradient_sum
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep, StepContext
from zerovl.objective.dense import dense_contrastive_loss, dense_sigmoid_loss
from zerovl.objective.equal_pairs import find_equal_pairs
from zerovl.objective.loss import LOSSES, start_bias
from zerovl.objective.mixup import Mix, Side
from zerovl.objective.sigmoid import SigmoidSweep, sigmoid_loss
from zerovl.objective.targets import Targets
from zerovl.objective.tiled import contrastive_loss
from zerovl.objective.tiles import TorchTiles

LossOf = Callable[[list[Tensor], Targets, Collectives], Tensor]


def tiled(name: str, dtype: torch.dtype, tile: int) -> LossOf:
    """A function of leaves (image, text, temperature, bias), targets and ranks; softmax leaves the bias alone."""
    if name == "softmax":
        return lambda x, targets, ranks: contrastive_loss(*x[:3], targets, ranks, TorchTiles(dtype, tile)) + 0 * x[3]
    return lambda x, targets, ranks: sigmoid_loss(x[0], x[1], x[2], x[3], targets, ranks, SigmoidSweep(dtype, tile))


def dense(name: str, x: list[Tensor], targets: Targets) -> Tensor:
    if name == "softmax":
        return dense_contrastive_loss(*x[:3], targets) + 0 * x[3]
    return dense_sigmoid_loss(x[0], x[1], x[2], x[3], targets)


def leaves(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    scalars = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in (0.1, -4.0)]
    return [*embeddings(count, dtype), *scalars]


def targets_of(count: int, side: Side, identities: Tensor | None = None) -> Targets:
    found = equal_identities(count) if identities is None else identities
    return Targets(identities=found) if side == "none" else replace(mixed_targets(count), side=side, identities=found)


def test_sums_are_those_of_the_whole_matrix() -> None:
    identities = equal_identities(50)
    whole = (identities[:, None] == identities).any(dim=2).double()  # (B, B)
    equal = find_equal_pairs(identities)
    assert equal is not None
    assert equal.rows.tolist() == (whole.sum(1) > 1).nonzero().squeeze(1).tolist()
    assert 5 < len(equal.rows) < 50
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(equal.sums(values[equal.rows]), (whole @ values)[equal.rows])
    shared = (whole / whole.sum(0) + whole / whole.sum(1, keepdim=True)) / 2
    torch.testing.assert_close(equal.shares(values[equal.rows]), (shared @ values)[equal.rows])


def test_equal_by_one_and_equal_by_the_other_are_not_equal_to_each_other() -> None:
    identities = torch.tensor([[1, 1], [2, 1], [2, 2]])  # 0 and 1 share a picture, 1 and 2 a caption
    equal = find_equal_pairs(identities)
    assert equal is not None
    assert equal.counts.tolist() == [2, 3, 2]
    assert equal.sums(torch.eye(3)).tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    assert find_equal_pairs(torch.tensor([[1, 1], [2, 2]])) is None


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("count", "tile"), [(1, 5), (2, 5), (7, 5), (65, 64), (65, 1024)])
@pytest.mark.parametrize("side", ["none", "image", "text"])
def test_tiled_equals_dense(name: str, count: int, tile: int, side: Side) -> None:
    x, targets = leaves(count), targets_of(count, side)
    found = gradients(tiled(name, torch.float64, tile)(x, targets, OneRank()), *x)
    expected = gradients(dense(name, x, targets), *x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_as_exact_as_without_equal_pairs(name: str) -> None:
    x, targets = leaves(96, torch.float32), targets_of(96, "text")
    found = gradients(tiled(name, torch.float32, 32)(x, targets, OneRank()), *x)
    double = [value.detach().double().requires_grad_() for value in x]
    assert max(relative_errors(found, gradients(dense(name, double, targets), *double))) < 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_where_no_two_pairs_are_equal_the_bits_are_those_of_before(name: str) -> None:
    x, alone = leaves(33, torch.float32), torch.arange(66).reshape(33, 2)
    compute = tiled(name, torch.float32, 16)
    found = gradients(compute(x, targets_of(33, "image", alone), OneRank()), *x)
    expected = gradients(compute(x, mixed_targets(33), OneRank()), *x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_batch_of_one_caption_has_no_negatives() -> None:
    x, identities = leaves(6), torch.tensor([[7, picture] for picture in range(6)])
    loss, *_, bias = gradients(tiled("sigmoid", torch.float64, 4)(x, targets_of(6, "none", identities), OneRank()), *x)
    yes = torch.sigmoid(x[0] @ x[1].T / x[2] + x[3])  # (B, B)
    torch.testing.assert_close(loss, -yes.log().sum().detach() / 6)
    torch.testing.assert_close(bias, (yes - 1).sum().detach() / 6)


def test_softmax_is_at_rest_where_equal_captions_are_equally_near() -> None:
    identities = torch.tensor([[7, 0], [7, 1], [8, 2], [8, 3]])
    axes = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]]  # (B, D): the embeddings of two captions
    x = [axes.clone().requires_grad_(), axes.clone().requires_grad_(), *leaves(1)[2:]]
    x[2] = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    found = gradients(tiled("softmax", torch.float64, 4)(x, targets_of(4, "none", identities), OneRank()), *x)
    for value in found[1:]:
        torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-9)
    as_negatives = gradients(tiled("softmax", torch.float64, 4)(x, Targets(), OneRank()), *x)
    assert float(as_negatives[0]) == pytest.approx(float(found[0]))  # log 2: which of the two cannot be known


@pytest.mark.parametrize("name", LOSSES)
def test_softmax_asks_nothing_more_of_equal_captions_with_one_embedding(name: str) -> None:
    """Their columns are one column: targets that are shared among them add up to the same. Sigmoid asks for more."""
    index = torch.tensor([0, 0, 1, 2, 2, 2])
    identities = torch.stack([index, torch.arange(6)], dim=1)
    images, texts, temperature, bias = leaves(6)
    captions = texts.detach()[:3].clone().requires_grad_()
    found, expected = (
        gradients(
            tiled(name, torch.float64, 4)([images, captions[index], temperature, bias], targets, OneRank()),
            *(images, captions, temperature),
        )
        for targets in (targets_of(6, "none", identities), Targets())
    )
    alike = [torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(found, expected, strict=True)]
    assert alike == [name == "softmax"] * 4


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("side", ["none", "image", "text"])
def test_equal_pairs_of_other_ranks_are_seen(
    name: str, world_size: int, side: Literal["none", "image", "text"]
) -> None:
    rows = 17
    identities = equal_identities(rows * world_size)
    x = leaves(rows * world_size)
    whole = targets_of(rows, side, identities)
    if whole.partner is not None:
        whole = replace(whole, partner=torch.cat([whole.partner + rank * rows for rank in range(world_size)]))
    loss, *expected = gradients(dense(name, x, whole), *x)

    def one_rank(rank: ThreadRank) -> list[Tensor]:
        part = slice(rank.rank * rows, (rank.rank + 1) * rows)
        own = [e.detach()[part].clone().requires_grad_() for e in x[:2]]
        own += [scalar.detach().clone().requires_grad_() for scalar in x[2:]]
        local = targets_of(rows, side, identities[part])
        return gradients(tiled(name, torch.float64, 8)(own, local, rank), *own)  # type: ignore[arg-type]

    losses, *found = zip(*on_ranks(world_size, one_rank), strict=True)
    for value in losses:
        torch.testing.assert_close(value, loss, rtol=1e-11, atol=0)
    whole_of = torch.cat(found[0]), torch.cat(found[1]), torch.stack(found[2]).sum(), torch.stack(found[3]).sum()
    for a, b in zip(whole_of, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def _steps_on_a_rank(ranks: Ranks, kind: str) -> list[tuple[float, dict[str, Tensor]]]:
    """A step of each loss over the rank's part of four micro-batches; dropout off, for masks are drawn by the rank."""
    parts = batch()
    for part, identities in zip(parts, equal_identities(24).split(6), strict=True):
        part.identities = identities
    share = len(parts) // ranks.world_size
    found = []
    for loss in LOSSES.values():
        dual = model(logit_bias=start_bias(loss)).double().eval()
        gradient = gradient_sum(dual, ranks.collectives)
        context = StepContext(dual, ranks, Precision("float32", CPU), loss, 0, gradient)
        step = PlainStep(context) if kind == "plain" else DecoupledStep(context, kept_graphs=1)
        value = step(parts[ranks.rank * share :][:share], Mix("text", 0.4), 0)
        found.append((float(value), gradients_of(dual)))
    return found


def test_decoupled_on_two_ranks_equals_plain_on_one() -> None:
    (alone,) = run_group(1, _steps_on_a_rank, "plain")
    for results in run_group(2, _steps_on_a_rank, "decoupled"):
        for (loss, found), (expected_loss, expected) in zip(results, alone, strict=True):
            assert loss == pytest.approx(expected_loss, rel=1e-12)
            assert found.keys() == expected.keys()
            for key in expected:
                torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-12)
