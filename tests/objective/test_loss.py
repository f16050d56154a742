"""The seam of the loss: a second one goes through both steps, ranks, the footprint and the plan's arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.towers import CPU, RANKS, batch, gradients, model, step_context
from zerovl.distributed.collectives import Collectives
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep
from zerovl.objective.loss import LOSSES, Loss, SigmoidLoss, SoftmaxLoss, start_bias
from zerovl.objective.mixup import Mix
from zerovl.objective.targets import Targets
from zerovl.params import Params
from zerovl.sizing.activations import Activations, Line
from zerovl.sizing.footprint import BatchLayout, ModelSize, Workload, footprint


@dataclass(frozen=True)
class PairwiseSigmoid:
    """Each pair of the batch is a yes or no of its own (as in arXiv 2303.15343, without bias), dense, one rank."""

    parameters: tuple[str, ...] = ("temperature",)

    def __call__(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        parameters: Mapping[str, Tensor],
        targets: Targets,
        ranks: Collectives,
    ) -> Tensor:
        logits = image_emb @ text_emb.T / parameters["temperature"]
        wanted = targets.mixed(torch.eye(len(logits), dtype=logits.dtype))
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(logits)

    def operations(self, batch: int, width: int) -> float:
        return 6.0 * batch * width

    def memory(self, local: int, batch: int, width: int, kind: str) -> int:
        return 4 * 3 * local * batch


def test_the_paper_s_loss_is_found_by_name() -> None:
    assert isinstance(LOSSES[Params().train.loss], SoftmaxLoss)


def test_a_bias_is_the_model_s_only_where_the_loss_reads_one() -> None:
    assert start_bias(LOSSES["softmax"]) is None
    assert start_bias(LOSSES["sigmoid"]) == -10.0
    assert "logit_bias" not in dict(model().named_parameters())
    assert model(logit_bias=-10.0).logit_bias.item() == -10.0


@pytest.mark.parametrize("loss", [SoftmaxLoss(), SigmoidLoss(), PairwiseSigmoid()])
@pytest.mark.parametrize("side", ["none", "image", "text"])
def test_both_steps_leave_the_same_gradient_for_any_loss(loss: Loss, side: str) -> None:
    found = []
    for make in (PlainStep, lambda context: DecoupledStep(context, kept_graphs=1)):
        dual = model(logit_bias=start_bias(loss)).double().train()
        context = replace(step_context(dual, RANKS, Precision("float32", CPU), seed=3), loss=loss)
        value = make(context)(batch(), Mix(side, 0.4), 7)  # type: ignore[arg-type]
        found.append((float(value), gradients(dual)))
    (plain, expected), (decoupled, gradient) = found
    assert plain == pytest.approx(decoupled, rel=1e-12)
    assert gradient.keys() == expected.keys()
    assert set(loss.parameters) <= expected.keys()
    for name in expected:
        torch.testing.assert_close(gradient[name], expected[name], rtol=1e-9, atol=1e-12)


def test_the_footprint_asks_the_loss() -> None:
    line = Line(0.0, 1000.0)
    activations = Activations(line, line, line)
    layout = BatchLayout(64, 1, 16, 0)

    def memory(loss: Loss) -> int:
        return footprint(Workload.of(Params(), loss), ModelSize(10, 10), activations, layout, "cpu").loss

    assert memory(PairwiseSigmoid()) == 4 * 3 * 64 * 64
    assert memory(SoftmaxLoss()) == 4 * (2 * 64 * Params().model.embed_dim + 2 * 64 * 64)
