"""Real steps on synthetic inputs, and what their seconds say of a step's parts: for `zerovl plan --measure`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from zerovl.distributed.ranks import Ranks
from zerovl.engine.frozen_features import training_image_size
from zerovl.engine.gradients import gradient_sum
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep, StepContext
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.loss import LOSSES, Loss
from zerovl.objective.targets import Targets
from zerovl.params import Params
from zerovl.sizing.footprint import BatchLayout
from zerovl.sizing.synthetic import make_inputs, make_mix

_REPEATS = 5
_LOSS_FLOPS = 5e12  # a larger loss is not run whole on the CPU


def costs(times: list[float], micro_batches: int, kept: int) -> tuple[float, float, float]:
    """Seconds of a micro-batch that goes forward twice, of one with a kept graph, and of the rest of a step.

    From steps with one micro-batch, with several, and with graphs kept. On a busy machine differences
    of times are rough: they stay within what can be (a forward pass is at most half of a micro-batch).
    """
    one, several, with_kept = times
    whole = several / micro_batches
    forward_twice = whole
    if micro_batches > 1:
        forward_twice = min(max((several - one) / (micro_batches - 1), 0.5 * whole), whole)
    forward = min(max(0.0, (several - with_kept) / kept), 0.5 * forward_twice)
    return forward_twice, forward_twice - forward, several - micro_batches * forward_twice


class Steps:
    """Whole training steps of a chosen number of micro-batches."""

    def __init__(
        self,
        params: Params,
        model: DualEncoder,
        precision: Precision,
        optimiser: torch.optim.Optimizer,
        layout: BatchLayout,
        tokens: int,
    ) -> None:
        self._plain, self._precision, self._optimiser = params.train.step == "plain", precision, optimiser
        ranks = Ranks(0, layout.world_size, precision.device, Repeated(layout.world_size))
        gradients = gradient_sum(model, ranks.collectives)
        loss = LOSSES[params.train.loss]
        self._context = StepContext(model, ranks, precision, loss, params.train.seed, gradients)
        self._mix = make_mix(params.train.mixup)
        self._inputs = make_inputs(model, layout.micro_batch, tokens, training_image_size(params))

    def __call__(self, micro_batches: int, kept: int) -> None:
        """Make one step of so many micro-batches, some of them with kept graphs."""
        step = PlainStep(self._context) if self._plain else DecoupledStep(self._context, kept)
        self._optimiser.zero_grad(set_to_none=True)
        step([self._inputs] * micro_batches, self._mix, 0)
        self._precision.scaler.step(self._optimiser)
        self._precision.scaler.update()


class Repeated:
    """W ranks that all hold what this one holds: right shapes, nothing sent."""

    rank = 0

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def gather(self, local: Tensor) -> Tensor:
        """(b, ...) -> (W b, ...)."""
        return local.repeat(self.world_size, *[1] * (local.dim() - 1))

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        """(W b, ...) -> (b, ...)."""
        return partial[: len(partial) // self.world_size].clone()

    def sum(self, local: Tensor) -> Tensor:
        """Return what is given."""
        return local

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        """Return what waits for nothing."""
        return lambda: None


def interleaved(*runs: Callable[[], None], device: torch.device) -> list[float]:
    """Median seconds of each, taken in turns after one round to warm up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for round_ in range(1 + _REPEATS):
        for run_, found in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run_()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]


def loss_seconds(loss: Loss, model: DualEncoder, layout: BatchLayout) -> float:
    """Of forward and backward of the loss of a whole local batch; scaled up where that would take too long."""
    device = model.temperature.device
    width, local = model.architecture.embed_dim, layout.local
    while device.type == "cpu" and local * loss.operations(local * layout.world_size, width) > _LOSS_FLOPS:
        local //= 2
    image, text = (torch.nn.functional.normalize(torch.randn(local, width, device=device)) for _ in range(2))

    def once() -> None:
        leaves = image.clone().requires_grad_(), text.clone().requires_grad_()
        ranks = Repeated(layout.world_size)
        scalars = {name: getattr(model, name).detach() for name in loss.parameters}
        loss(*leaves, scalars, Targets(), ranks).backward()

    (seconds,) = interleaved(once, device=device)
    return seconds * (layout.local / local) ** 2
