"""A loss that overflows under fp16: its step is skipped, its scale lowered, so many times in a row and no more."""

from pathlib import Path

import pytest
import torch

from tests.support.towers import CPU, RANKS, batch, decoupled_step, model, plain_step
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.loss_watch import MOST_SKIPPED, LossWatch
from zerovl.engine.precision import Precision
from zerovl.engine.step_errors import Origin
from zerovl.errors import ZeroVLError
from zerovl.objective.mixup import Mix

NAN = float("nan")


@pytest.mark.parametrize("kind", [plain_step, decoupled_step])
def test_the_scaler_skips_the_step(kind: type) -> None:
    dual, precision = model().train(), Precision("fp16", CPU)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    optimiser = torch.optim.AdamW(dual.parameters(), fused=True)
    moved = []
    for bad in (True, False):
        before = [parameter.detach().clone() for parameter in dual.parameters()]
        optimiser.zero_grad()
        hook = dual.image_projection.register_forward_hook(lambda *_, bad=bad: _[2] * (torch.inf if bad else 1.0))
        loss = kind(dual, RANKS, precision)(batch(), Mix(), 0)  # type: ignore[call-arg]
        hook.remove()
        assert bool(loss.isfinite()) is not bad
        precision.scaler.step(optimiser)
        precision.scaler.update()
        assert precision.scaler.get_scale() == 64.0
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, dual.parameters(), strict=True)))
    assert moved == [False, True]


def test_finite_gradients_of_a_loss_that_is_not_are_dropped_too() -> None:
    precision = Precision("fp16", CPU)
    weight = torch.nn.Parameter(torch.ones(2))
    precision.backward(weight.sum() + torch.inf)
    assert weight.grad is not None
    assert bool(weight.grad.isnan().all())
    weight.grad = None
    precision.backward(weight.sum())
    assert torch.equal(weight.grad, torch.full((2,), 2.0**16))


def test_so_many_in_a_row(tmp_path: Path) -> None:
    said: list[str] = []
    watch = LossWatch(MOST_SKIPPED, Checkpoints(tmp_path / "checkpoints", 2, 0, RANKS))

    def look(step: int, loss: float) -> bool:
        return watch.is_finite(Origin(step, "drawn", ["a-1"]), loss, said.append)

    for _ in range(2):
        assert not any(look(step, NAN) for step in range(MOST_SKIPPED))
        assert look(MOST_SKIPPED, 1.0), "which makes the count begin again"
    assert len(said) == 2
    assert "loss is nan in step 0 (source drawn): fp16 overflowed" in said[0]
    assert not any(look(step, NAN) for step in range(MOST_SKIPPED))
    with pytest.raises(ZeroVLError, match=f"loss is nan in step {MOST_SKIPPED} "):
        look(MOST_SKIPPED, NAN)


def test_without_a_loss_scale_it_ends_at_once(tmp_path: Path) -> None:
    watch = LossWatch(0, Checkpoints(tmp_path / "checkpoints", 2, 0, RANKS))
    with pytest.raises(ZeroVLError, match="loss is inf in step 3 "):
        watch.is_finite(Origin(3, "drawn", ["a-1"]), float("inf"), print)
