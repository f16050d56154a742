"""One sum of the gradient over ranks a step, sent while the last backward of the step still runs.

The gradients of a step are sums already (see `contrastive_loss`), so ranks add them up and nothing is
divided. Parameters are put into buckets of 32 MiB in the order in which a backward pass meets them.
A bucket leaves as soon as its last gradient is there; buckets leave in their order, so that all ranks
call the same collectives one after another. After the sum, `.grad` is a view of its bucket: no second
copy of the gradient is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from zerovl.distributed.collectives import Collectives

BUCKET_ELEMENTS = 8 << 20  # 32 MiB of float32 a collective


class Gradients(Protocol):
    """Brings the gradients of all ranks together, once a step."""

    def last_backward(self) -> AbstractContextManager[object]:
        """Around the last backward pass of a step; passes before it stay on their rank."""

    def finish(self) -> None:
        """After it: `.grad` is the sum over ranks when this returns; a collective."""


class OwnGradients:
    """A world of one: the own gradient is the sum."""

    def last_backward(self) -> AbstractContextManager[object]:
        """Return a block that does nothing."""
        return nullcontext()

    def finish(self) -> None:
        """Nothing to wait for."""


class GradientSum:
    """Sums `.grad` of `parameters` over the ranks of `collectives`, overlapping with the last backward.

    All ranks must hold the same parameters in the same order, and each step must reach the same of
    them on all ranks; those that it does not reach keep `.grad` None, and hold their bucket and those
    after it back until `finish`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], collectives: Collectives, bucket_elements: int = BUCKET_ELEMENTS
    ) -> None:
        self._collectives = collectives
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        self._buckets = list(_buckets(learned[::-1], bucket_elements))
        self._armed = False
        self._reset()
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(self._arrival_in(number))

    @contextmanager
    def last_backward(self) -> Iterator[None]:
        """Send the buckets while the backward pass in the block runs."""
        self._reset()
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def finish(self) -> None:
        """Send what is left and wait for all of it; `.grad` is then the sum over ranks."""
        self._leave(len(self._buckets))  # what this backward did not reach: a temperature, unused weights
        for wait in self._waits:
            wait()
        self._reset()

    def _reset(self) -> None:
        self._missing = [len(bucket) for bucket in self._buckets]
        self._left = 0  # buckets before this one are on their way
        self._waits: list[Callable[[], object]] = []

    def _arrival_in(self, number: int) -> Callable[[Tensor], None]:
        def arrived(_parameter: Tensor) -> None:
            if not self._armed:
                return
            self._missing[number] -= 1
            ready = self._left
            while ready < len(self._buckets) and self._missing[ready] <= 0:
                ready += 1
            self._leave(ready)

        return arrived

    def _leave(self, end: int) -> None:
        """Send the buckets up to `end` that are still here."""
        while self._left < end:
            reached = [parameter for parameter in self._buckets[self._left] if parameter.grad is not None]
            self._left += 1
            if not reached:
                continue
            flat = torch.cat([_flat_gradient(parameter) for parameter in reached])
            for parameter, part in zip(reached, flat.split([p.numel() for p in reached]), strict=True):
                parameter.grad = part.as_strided(parameter.shape, parameter.stride())
            self._waits.append(self._collectives.start_sum(flat))


def gradient_sum(model: nn.Module, collectives: Collectives) -> Gradients:
    """For a model that every rank holds whole."""
    return OwnGradients() if collectives.world_size == 1 else GradientSum(model.parameters(), collectives)


def _flat_gradient(parameter: nn.Parameter) -> Tensor:
    """The gradient in the order of the parameter's memory (channels last, say), as fused optimisers need it."""
    gradient = parameter.grad
    assert gradient is not None
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))


def _buckets(parameters: list[nn.Parameter], limit: int) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one dtype, up to `limit` elements together."""
    bucket: list[nn.Parameter] = []
    elements = 0
    for parameter in parameters:
        if bucket and (elements + parameter.numel() > limit or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, elements = [], 0
        bucket.append(parameter)
        elements += parameter.numel()
    if bucket:
        yield bucket
