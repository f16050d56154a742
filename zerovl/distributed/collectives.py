"""What the loss needs of the other ranks; one rank needs nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Collectives(Protocol):
    """Collective operations over W ranks; every rank must call them in the same order."""

    rank: int
    world_size: int

    def gather(self, local: Tensor) -> Tensor:
        """Concatenate along dimension 0 in rank order: (b, ...) -> (W b, ...)."""

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        """Sum over ranks and keep the own slice: (W b, ...) -> (b, ...)."""

    def sum(self, local: Tensor) -> Tensor:
        """Sum over ranks, in place."""

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        """Begin to sum over ranks, in place; `local` is the sum once the returned function has been called."""


class OneRank:
    """A world of one."""

    rank = 0
    world_size = 1

    def gather(self, local: Tensor) -> Tensor:
        """Return the own rows, which are all there are."""
        return local

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        """Return the own part, which is the whole."""
        return partial

    def sum(self, local: Tensor) -> Tensor:
        """Return the own value, which is the sum."""
        return local

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        """Return a function that waits for nothing."""
        return _nothing


class ProcessGroup:
    """The default group of torch.distributed (gloo or nccl); `around` encloses each call, so that one can watch it."""

    def __init__(self, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._around = around

    def gather(self, local: Tensor) -> Tensor:
        """Concatenate the rows of all ranks: (b, ...) -> (W b, ...)."""
        gathered = local.new_empty(self.world_size * local.shape[0], *local.shape[1:])
        with self._around():
            dist.all_gather_into_tensor(gathered, local.contiguous())
        return gathered

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        """Sum over ranks and keep the own slice: (W b, ...) -> (b, ...)."""
        local = partial.new_empty(partial.shape[0] // self.world_size, *partial.shape[1:])
        with self._around():
            dist.reduce_scatter_tensor(local, partial.contiguous())
        return local

    def sum(self, local: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        with self._around():
            dist.all_reduce(local)
        return local

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        """Begin to sum over ranks, in place; the returned function waits for the end."""
        work = dist.all_reduce(local, async_op=True)
        assert work is not None

        def wait() -> None:
            with self._around():
                work.wait()

        return wait


class FromHost:
    """Takes tensors of the host over collectives whose tensors lie on `device`: NCCL carries no others."""

    def __init__(self, collectives: Collectives, device: torch.device) -> None:
        self.rank = collectives.rank
        self.world_size = collectives.world_size
        self._collectives = collectives
        self._device = device

    def gather(self, local: Tensor) -> Tensor:
        """Concatenate the rows of all ranks: (b, ...) -> (W b, ...)."""
        return self._collectives.gather(local.to(self._device)).cpu()

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        """Sum over ranks and keep the own slice: (W b, ...) -> (b, ...)."""
        return self._collectives.reduce_scatter(partial.to(self._device)).cpu()

    def sum(self, local: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        return local.copy_(self._collectives.sum(local.to(self._device)))

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        """Begin to sum over ranks; the returned function waits for the end and writes it into `local`."""
        summed = local.to(self._device)
        wait = self._collectives.start_sum(summed)

        def write() -> None:
            wait()
            local.copy_(summed)

        return write


def _nothing() -> None:
    """One rank has nothing to wait for."""
