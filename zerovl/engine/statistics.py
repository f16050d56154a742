"""Running statistics of BatchNorm layers when a batch goes through them more than once.

Each micro-batch must move the running mean and variance once, in the order of the micro-batches, as
one plain pass over them does. A pass that goes over them again leaves them alone (`frozen`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zerovl.distributed.collectives import Collectives


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
    def _momentum(self, value: float) -> Iterator[None]:
        kept = [(layer.momentum, layer.num_batches_tracked) for layer in self._layers]
        for layer in self._layers:
            layer.momentum, layer.num_batches_tracked = value, None
        try:
            yield
        finally:
            for layer, (momentum, count) in zip(self._layers, kept, strict=True):
                layer.momentum, layer.num_batches_tracked = momentum, count
