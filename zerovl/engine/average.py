"""An exponential moving average of the weights, which is scored and written in place of the last ones.

Averages along the way often score better than where it ends. Form and warm-up are those of TensorFlow's
`tf.train.ExponentialMovingAverage`.
Everything works on the part of a weight that a rank holds, without collectives: sharded or not is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from zerovl.engine.sharding import local_part
from zerovl.engine.weights import named_weights, plain_name

_PREFIX = "average."  # of names in a checkpoint
_UPDATES = "average_updates"


class Average(Protocol):
    """What is made of the weights over the steps."""

    def update(self) -> None:
        """Take the weights in as they are now; after each optimiser step."""

    def applied(self) -> AbstractContextManager[None]:
        """Put the average in the weights' place inside the block."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the live tensors that belong to a checkpoint, by name."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's tensors; from the weights as they are now, where it has no average."""


class LastWeights:
    """No average: the weights as the last step left them."""

    def update(self) -> None:
        """Nothing to keep."""

    def applied(self) -> AbstractContextManager[None]:
        """Return a block that changes nothing."""
        return nullcontext()

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to go on from."""


class ExponentialAverage:
    """average = d average + (1 - d) weights after each step; d = min(decay, (1 + t) / (10 + t)) after t updates before.

    The smaller d of the first steps forgets the weights that training began with. What learns and buffers that
    move with it (running statistics) are averaged, in the weights' own float32; the rest is the same anyway.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
        self._average = {
            name: weight.detach().clone()
            for name, weight in named_weights(model).items()
            if (parameters[name].requires_grad if name in parameters else weight.is_floating_point())
        }
        self._updates = torch.tensor(0)

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights in as they are now."""
        done = int(self._updates)
        decay = min(self._decay, (1 + done) / (10 + done))
        torch._foreach_lerp_(self._local(self._average), self._local(named_weights(self._model)), 1 - decay)
        self._updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the weights' place inside the block; afterwards they are as before, bit for bit."""
        kept = [weight.clone() for weight in self._local(named_weights(self._model))]
        self._set(self._local(self._average))
        try:
            yield
        finally:
            self._set(kept)

    def tensors(self) -> dict[str, Tensor]:
        """Return averages by the names of their weights, and the number of updates."""
        return {f"{_PREFIX}{name}": tensor for name, tensor in self._average.items()} | {_UPDATES: self._updates}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's average, else begin with the weights."""
        weights = named_weights(self._model)
        for name, average in self._average.items():
            average.copy_(tensors.get(f"{_PREFIX}{name}", weights[name]))
        self._updates.copy_(tensors.get(_UPDATES, torch.tensor(0)))

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._local(named_weights(self._model)), values, strict=True):
            weight.copy_(value)

    def _local(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """This rank's parts of what is averaged, in one order."""
        return [local_part(tensors[name].detach()) for name in self._average]


def make_average(model: nn.Module, decay: float) -> Average:
    """Return what `train.ema_decay` asks for, beginning with the weights as they are now."""
    return ExponentialAverage(model, decay) if decay else LastWeights()
