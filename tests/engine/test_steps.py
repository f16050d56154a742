"""Properties of the two steps that the golden gradients do not cover."""

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.rank_groups import run_group
from tests.support.towers import CPU, RANKS, MicroInputs, batch, decoupled_step, gradients, model, plain_step
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.forward import Forward, Hidden, random_seeds
from zerovl.engine.optimiser import Schedule, make_schedule
from zerovl.engine.precision import Precision
from zerovl.engine.step_errors import Origin, not_finite, out_of_memory
from zerovl.engine.steps import StepContext
from zerovl.errors import ZeroVLError
from zerovl.objective.mixup import Mix
from zerovl.params import TrainParams


@pytest.mark.parametrize("kept_graphs", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("side", ["none", "image", "text"])
def test_dropout_is_replayed_and_kept_graphs_change_nothing(side: str, kept_graphs: int) -> None:
    found = []
    for kind, options in ((plain_step, {}), (decoupled_step, {"kept_graphs": kept_graphs})):
        dual = model().double().train()
        step = kind(dual, RANKS, Precision("float32", CPU), seed=3, **options)
        loss = step(batch(), Mix(side, 0.4), 7)  # type: ignore[arg-type]
        found.append((float(loss), gradients(dual)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert found[0][1].keys() == found[1][1].keys()
    for name, expected in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tower", ["vit_tiny_patch16_224", "test_resnet"])
def test_kept_graphs_change_no_bit(tower: str) -> None:
    def results(kept_graphs: int) -> dict[str, Tensor]:
        dual = model(tower).train()
        step = decoupled_step(dual, RANKS, Precision("float32", CPU), seed=3, kept_graphs=kept_graphs)
        loss = step(batch(), Mix("image", 0.4), 7)
        return {"loss": loss, **gradients(dual), **dict(dual.named_buffers())}

    expected = results(0)
    for kept_graphs in (1, 3, 4):
        found = results(kept_graphs)
        assert found.keys() == expected.keys()
        assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("kept_graphs", [0, 1])
def test_embeddings_of_the_first_pass_are_in_one_tensor_a_side_until_the_second(
    kept_graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, compute_loss = Forward.embeddings, StepContext.compute_loss
    small: list[weakref.ref[Tensor]] = []  # those of micro-batches that go forward again
    whole: list[weakref.ref[Tensor]] = []  # those of the local batch
    alive: list[list[int]] = []  # of both, after each forward

    def watched(self: Forward, hidden: Hidden, index: int) -> tuple[Tensor, Tensor]:
        pair = embeddings(self, hidden, index)
        alive.append([sum(known() is not None for known in refs) for refs in (small, whole)])
        if not torch.is_grad_enabled():
            small.extend(weakref.ref(side) for side in pair)
        return pair

    def noted(self: StepContext, mix: Mix, pair: tuple[Tensor, Tensor], *rest: Any) -> Tensor:
        whole.extend(weakref.ref(side) for side in pair)
        return compute_loss(self, mix, pair, *rest)

    monkeypatch.setattr(Forward, "embeddings", watched)
    monkeypatch.setattr(StepContext, "compute_loss", noted)
    decoupled_step(model(), RANKS, Precision("float32", CPU), seed=0, kept_graphs=kept_graphs)(batch(), Mix(), 0)
    assert len(small) == 2 * (4 - kept_graphs)
    assert len(whole) == 2
    assert alive == [[0, 0]] * (4 + 4 - kept_graphs)


@pytest.mark.parametrize("kept_graphs", [0, 1, 3, 4])
def test_a_kept_graph_saves_its_second_forward_and_has_none_without_graph_beside_it(kept_graphs: int) -> None:
    dual = model().train()
    image: list[bool] = []  # whether a forward has a graph, in their order
    text: list[bool] = []
    dual.image_tower.register_forward_hook(lambda *_: image.append(torch.is_grad_enabled()))
    dual.text_tower.register_forward_hook(lambda *_: text.append(torch.is_grad_enabled()))
    decoupled_step(dual, RANKS, Precision("float32", CPU), seed=0, kept_graphs=kept_graphs)(batch(), Mix(), 0)
    assert image == text == [False] * (4 - kept_graphs) + [True] * 4


def test_masks_differ_between_steps_and_ranks() -> None:
    dual = model().train()
    other = Ranks(1, 1, CPU, OneRank())  # the second of two ranks, by its seeds
    losses = {
        float(decoupled_step(dual, ranks, Precision("float32", CPU), seed=3)(batch(), Mix(), step))
        for ranks in (RANKS, other)
        for step in (0, 1)
    }
    assert len(losses) == 4


def test_a_micro_batch_has_the_same_masks_on_any_number_of_ranks() -> None:
    assert random_seeds(3, 7, rank=1, micro_batches=2) == random_seeds(3, 7, rank=0, micro_batches=4)[2:]
    assert len({seed for pair in random_seeds(3, 7, rank=0, micro_batches=4) for seed in pair}) == 8


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("kept_graphs", [0, 1, 4])
def test_running_statistics_move_once(kept_graphs: int, momentum: float | None) -> None:
    plain, decoupled = (model("test_resnet").train() for _ in range(2))
    for dual in (plain, decoupled):
        for layer in dual.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = momentum
    plain_step(plain, RANKS, Precision("float32", CPU), seed=0)(batch(), Mix(), 0)
    step = decoupled_step(decoupled, RANKS, Precision("float32", CPU), seed=0, kept_graphs=kept_graphs)
    step(batch(), Mix(), 0)
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(decoupled)[name], expected, rtol=1e-3, atol=1e-5)
    layers = [m for m in decoupled.modules() if isinstance(m, nn.BatchNorm2d)]
    assert layers
    assert all(int(layer.num_batches_tracked) == 4 for layer in layers)
    for (name, a), b in zip(plain.named_buffers(), decoupled.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def _statistics_on_a_rank(ranks: Ranks, part: int | None = None) -> list[Tensor]:
    """After a step whose local batch is half `part` of the whole one, by default the rank's own half."""
    dual = model("test_resnet").train()
    start = 2 * (ranks.rank if part is None else part)
    step = decoupled_step(dual, ranks, Precision("float32", CPU), seed=0, kept_graphs=1)
    step(batch()[start : start + 2], Mix(), 0)
    return [buffer for name, buffer in dual.named_buffers() if "running" in name]


def test_running_statistics_are_averaged_over_ranks() -> None:
    first, second = run_group(2, _statistics_on_a_rank)
    halves = [_statistics_on_a_rank(RANKS, part) for part in (0, 1)]
    for one, other, own, others in zip(first, second, *halves, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, (own + others) / 2)


@pytest.mark.parametrize("kept_graphs", [0, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_and_unscaled(precision: str, kept_graphs: int) -> None:
    exact, low = model().train(), model().train()
    decoupled_step(exact, RANKS, Precision("float32", CPU), seed=0)(batch(), Mix(), 0)
    scaled = Precision(precision, CPU)
    if precision == "fp16":  # the default scale overflows in the first steps, as it is meant to
        scaled.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    decoupled_step(low, RANKS, scaled, seed=0, kept_graphs=kept_graphs)(batch(), Mix(), 0)
    optimiser = torch.optim.AdamW(low.parameters())
    scaled.scaler.unscale_(optimiser)
    for name, expected in gradients(exact).items():
        found = gradients(low)[name]
        similarity = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
        if expected.abs().max() > 1e-6:
            assert similarity > 0.97, name


@pytest.mark.parametrize("kept_graphs", [0, 2])
@pytest.mark.parametrize("tower", ["image_tower", "text_tower"])
def test_frozen_tower_goes_forward_once_and_gets_no_gradient(tower: str, kept_graphs: int) -> None:
    plain, decoupled = model().double().train(), model().double().train()
    calls = []
    for dual in (plain, decoupled):
        getattr(dual, tower).requires_grad_(False)
    getattr(decoupled, tower).register_forward_hook(lambda *_: calls.append(1))
    plain_step(plain, RANKS, Precision("float32", CPU), seed=0)(batch(), Mix("text", 0.3), 0)
    step = decoupled_step(decoupled, RANKS, Precision("float32", CPU), seed=0, kept_graphs=kept_graphs)
    step(batch(), Mix("text", 0.3), 0)
    assert len(calls) == 4
    assert not any(name.startswith(tower) for name in gradients(decoupled))
    assert gradients(plain).keys() == gradients(decoupled).keys()
    for name, expected in gradients(plain).items():  # the frozen tower has dropout: its masks were the same
        torch.testing.assert_close(gradients(decoupled)[name], expected, rtol=1e-9, atol=1e-12)


def test_schedule_is_warm_up_then_half_a_cosine() -> None:
    schedule = Schedule(peak=1.0, steps=100, warmup_steps=10, final_fraction=0.1)
    rates = [schedule.lr(step) for step in range(101)]
    assert rates[:11] == pytest.approx([step / 10 for step in range(11)])
    assert max(rates) == rates[10]
    assert rates[55] == pytest.approx(0.55)  # half way down
    assert rates[100] == pytest.approx(0.1)  # would come next
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert Schedule(1.0, 1, 0, 0.1).lr(0) == 1.0


def test_a_run_of_one_step_is_not_all_warm_up() -> None:
    for steps in (1, 2, 10):
        schedule = make_schedule(TrainParams(lr=1.0, warmup_fraction=0.99), steps)
        assert schedule.lr(steps - 1) == 1.0


@dataclass
class StepBatch:
    step: int
    source: str
    micro_batches: list[MicroInputs]


def test_messages_name_step_source_keys_and_the_fix(tmp_path: Path) -> None:
    bad = StepBatch(12, "board", batch(2))
    checkpoints = Checkpoints(tmp_path / "3f2a90c1" / "checkpoints", 2, 0, RANKS)
    nothing_saved = not_finite(Origin.of(bad), float("nan"), checkpoints)
    assert isinstance(nothing_saved, ZeroVLError)
    for word in ("nan", "step 12", "board", "a-1", "train.clip_norm", "there is no checkpoint yet"):
        assert word in str(nothing_saved)
    for step in (6, 9, 15):  # the last is of a run that went on further before
        checkpoints.path(step).mkdir(parents=True)
    assert "`zerovl train --from 3f2a90c1@9`" in str(not_finite(Origin.of(bad), float("inf"), checkpoints))
    assert "train.micro_batch to 3" in str(out_of_memory(bad, RuntimeError("no more")))
