"""The kinds of training step that are measured: ours and the peers', on the same towers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.peers import GradCacheStep, OpenClipStep, open_clip_loss
from benchmarks.towers import MicroBatch
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.gradients import OwnGradients
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep, Step, StepContext
from zerovl.engine.transfer import Transfer, transfer_to
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.loss import SoftmaxLoss
from zerovl.objective.mixup import Mix
from zerovl.params import MachineParams

PLAIN, DGA, KEPT = "plain", "DGA", "DGA with kept graphs"  # the second as training does it by itself
NOTHING_KEPT = "DGA without a kept graph"  # as the paper has it
GRAD_CACHE, OPEN_CLIP, ACCUM = "GradCache's algorithm", "open_clip", "open_clip accum_freq"
WHOLE = (PLAIN, OPEN_CLIP)  # these take the batch in one piece


def finders(
    model: DualEncoder, device: torch.device, precision: str, kept: int, transfer: Transfer | None = None
) -> dict[str, Callable[[], Step]]:
    """The functions raise `NotMeasured` where a peer is missing; `kept` are the kept graphs of `KEPT`.

    Without `transfer` inputs of our steps go to the device as training moves them.
    """
    ranks, how = one_rank(device), Precision(precision, device)

    def context() -> StepContext:
        return StepContext(
            model, ranks, how, SoftmaxLoss(), 0, OwnGradients(), transfer=transfer or transfer_to(device)
        )

    return {
        PLAIN: lambda: PlainStep(context()),
        DGA: lambda: DecoupledStep(context(), MachineParams().kept_graphs),
        NOTHING_KEPT: lambda: DecoupledStep(context()),
        KEPT: lambda: DecoupledStep(context(), kept),
        GRAD_CACHE: lambda: GradCacheStep(model, how),
        OPEN_CLIP: lambda: OpenClipStep(model, open_clip_loss(), how),
        ACCUM: lambda: OpenClipStep(model, open_clip_loss(), how),
    }


def kept_graphs(step: Step) -> int:
    return step.kept_graphs if isinstance(step, DecoupledStep) else 0


def one_rank(device: torch.device) -> Ranks:
    return Ranks(0, 1, device, OneRank())


def run_step(step: Step, model: DualEncoder, batch: Sequence[MicroBatch]) -> None:
    """One step without the optimiser."""
    model.zero_grad(set_to_none=True)
    step(batch, Mix(), 0)
