"""W ranks as threads of one process: `Collectives` without sockets."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class ThreadRank:
    def __init__(self, rank: int, slots: list[Tensor], barrier: Barrier) -> None:
        self.rank, self.world_size = rank, len(slots)
        self._slots, self._barrier = slots, barrier

    def _exchange(self, own: Tensor) -> list[Tensor]:
        self._slots[self.rank] = own.clone()
        self._barrier.wait(timeout=60)
        everyone = list(self._slots)
        self._barrier.wait(timeout=60)
        return everyone

    def gather(self, local: Tensor) -> Tensor:
        return torch.cat(self._exchange(local))

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        return torch.stack(self._exchange(partial)).sum(dim=0).chunk(self.world_size)[self.rank]

    def sum(self, local: Tensor) -> Tensor:
        return local.copy_(torch.stack(self._exchange(local)).sum(dim=0))


def on_ranks(world_size: int, function: Callable[[ThreadRank], T]) -> list[T]:
    """Results of `function` on each rank."""
    slots, barrier = [torch.empty(0)] * world_size, Barrier(world_size)
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(function, [ThreadRank(rank, slots, barrier) for rank in range(world_size)]))
