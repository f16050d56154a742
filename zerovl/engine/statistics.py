"""Running statistics of BatchNorm layers when a batch goes through them more than once.

Each micro-batch must move the running mean and variance once, in the order of the micro-batches, as
one plain pass over them does. A pass that will be repeated leaves them alone (`frozen`); a pass whose
graph is kept is not repeated, so what it saw is recorded and applied when its turn comes (`recorded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zerovl.distributed.collectives import Collectives


@dataclass(frozen=True)
class Seen:
    """Mean and unbiased variance of one batch in one layer, (channels,) each."""

    layer: _BatchNorm
    mean: Tensor
    variance: Tensor

    @torch.no_grad()
    def apply(self) -> None:
        """Move the layer's running statistics as its own forward would have."""
        layer = self.layer
        assert layer.running_mean is not None
        assert layer.running_var is not None
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        # momentum None means the plain average over all batches so far
        share = 1 / float(layer.num_batches_tracked or 1) if layer.momentum is None else layer.momentum
        layer.running_mean.lerp_(self.mean, share)
        layer.running_var.lerp_(self.variance, share)


class BatchStatistics:
    """All BatchNorm layers of a model that learn their statistics."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
        ]

    @torch.no_grad()
    def average(self, ranks: Collectives) -> None:
        """Give all ranks the mean of their running statistics; each has seen its own pairs. A collective."""
        if ranks.world_size == 1 or not self._layers:
            return
        buffers = [buffer for layer in self._layers for buffer in (layer.running_mean, layer.running_var)]
        own = [buffer for buffer in buffers if buffer is not None]
        mean = ranks.sum(torch.cat(own)) / ranks.world_size
        for buffer, part in zip(own, mean.split([buffer.numel() for buffer in own]), strict=True):
            buffer.copy_(part)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Layers normalise by their batch, and leave their running statistics alone."""
        with self._momentum(0.0):
            yield

    @contextmanager
    def recorded(self) -> Iterator[Callable[[], list[Seen]]]:
        """As `frozen`; the function given tells, after the pass, what the layers saw in it."""
        seen: list[Seen] = []
        running = [(layer.running_mean, layer.running_var) for layer in self._layers]
        for layer in self._layers:
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean = torch.zeros_like(layer.running_mean)
            layer.running_var = torch.zeros_like(layer.running_var)
        try:
            with self._momentum(1.0):  # the running statistics become those of the one batch
                yield lambda: seen
        finally:
            for layer, (mean, variance) in zip(self._layers, running, strict=True):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                seen.append(Seen(layer, layer.running_mean, layer.running_var))
                layer.running_mean, layer.running_var = mean, variance

    @contextmanager
    def _momentum(self, value: float) -> Iterator[None]:
        kept = [(layer.momentum, layer.num_batches_tracked) for layer in self._layers]
        for layer in self._layers:
            layer.momentum, layer.num_batches_tracked = value, None
        try:
            yield
        finally:
            for layer, (momentum, count) in zip(self._layers, kept, strict=True):
                layer.momentum, layer.num_batches_tracked = momentum, count
