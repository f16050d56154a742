"""fp16 on a GPU: a gradient that overflows costs its step and half the loss scale, nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.device_runs import SCALE, StepInputs, flat, make_trainer, precision_of, ragged_batch, run_trainer
from tests.support.towers import decoupled_step, model
from zerovl.distributed.ranks import Ranks
from zerovl.engine.forward import Inputs
from zerovl.engine.steps import Step
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix

pytestmark = pytest.mark.gpu

STEPS, OVERFLOWS, CLIP_NORM = 20, (6, 13), 0.05


@dataclass(frozen=True)
class Overflowing:
    """A step after which one element of the gradient is infinite, in some steps; keeps the weights before each."""

    inner: Step
    dual: DualEncoder
    weights: list[Tensor] = field(default_factory=list)

    def __call__(self, batch: Sequence[Inputs], mix: Mix, step: int) -> Tensor:
        self.weights.append(flat(self.dual))
        loss = self.inner(batch, mix, step)
        if step in OVERFLOWS:
            gradient = self.dual.image_projection.weight.grad
            assert gradient is not None
            gradient[0, 0] = torch.inf
        return loss


@pytest.mark.parametrize("clip_norm", [0.0, CLIP_NORM])
def test_an_overflow_skips_its_step_and_halves_the_scale(
    clip_norm: float, device: torch.device, one_rank: Ranks, tmp_path: Path
) -> None:
    dual, precision = model().to(device), precision_of("fp16", device)
    step = Overflowing(decoupled_step(dual, one_rank, precision, kept_graphs=1), dual)
    trainer = make_trainer(dual, step, precision, one_rank, tmp_path, steps=STEPS, clip_norm=clip_norm)
    norms: list[float] = []  # of the gradient that the optimiser is given
    trainer.state.optimiser.register_step_pre_hook(
        lambda *_: norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in dual.parameters()])))
    )
    outcome, rows = run_trainer(trainer, [StepInputs(number, ragged_batch(device)) for number in range(STEPS)])

    assert outcome.state == "finished"
    assert precision.scaler.get_scale() == SCALE / 2 ** len(OVERFLOWS)
    weights = [*step.weights, flat(dual)]
    for number in range(1, STEPS - 1):  # the learning rate of the first and the last may be 0
        assert torch.equal(weights[number], weights[number + 1]) == (number in OVERFLOWS), number
    assert all(bool(each.isfinite().all()) for each in weights)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert all(torch.tensor(row["loss"]).isfinite() for row in rows)
    if clip_norm:
        finite = [norm for norm in norms if norm < float("inf")]
        assert max(finite) <= clip_norm * 1.001
        assert max(row.get("gradient_norm", 0.0) for row in rows) > clip_norm  # there was something to clip
