"""The kinds of training step that are measured: ours and the peers', on the same towers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.peers import GradCacheStep, OpenClipStep, open_clip_loss
from benchmarks.towers import MicroBatch
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.collectives import OneRank
from zerovl.objective.mixup import Mix
from zerovl.training.forward import Precision
from zerovl.training.ranks import Ranks
from zerovl.training.steps import DecoupledStep, PlainStep, Step

PLAIN, DGA, KEPT = "plain", "DGA", "DGA with kept graphs"
GRAD_CACHE, OPEN_CLIP, ACCUM = "GradCache's algorithm", "open_clip", "open_clip accum_freq"
WHOLE = (PLAIN, OPEN_CLIP)  # these take the batch in one piece


def finders(model: DualEncoder, device: torch.device, precision: str, kept: int) -> dict[str, Callable[[], Step]]:
    """The functions raise `NotMeasured` where a peer is missing; `kept` are the kept graphs of `KEPT`."""
    ranks, how = one_rank(device), Precision(precision, device)
    return {
        PLAIN: lambda: PlainStep(model, ranks, how, seed=0),
        DGA: lambda: DecoupledStep(model, ranks, how, seed=0),
        KEPT: lambda: DecoupledStep(model, ranks, how, seed=0, kept_graphs=kept),
        GRAD_CACHE: lambda: GradCacheStep(model, how),
        OPEN_CLIP: lambda: OpenClipStep(model, open_clip_loss(), how),
        ACCUM: lambda: OpenClipStep(model, open_clip_loss(), how),
    }


def one_rank(device: torch.device) -> Ranks:
    return Ranks(0, 1, device, OneRank())


def run(step: Step, model: DualEncoder, batch: Sequence[MicroBatch]) -> None:
    """One step without the optimiser."""
    model.zero_grad(set_to_none=True)
    step(batch, Mix(), 0)
