"""Tensors of the host over collectives of a device: what comes back lies where it lay, and is the sum."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zerovl.distributed.collectives import FromHost


class Elsewhere:
    """Two equal ranks whose collectives see copies alone, as those of a GPU see of a tensor of the host."""

    rank, world_size = 0, 2

    def gather(self, local: Tensor) -> Tensor:
        return torch.cat([local, local])

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        return 2 * partial[: len(partial) // 2]

    def sum(self, local: Tensor) -> Tensor:
        return 2 * local

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        return lambda: local.mul_(2)


def test_a_sum_is_written_into_the_tensor_of_the_host() -> None:
    collectives = FromHost(Elsewhere(), torch.device("cpu"))
    whole = torch.arange(6, dtype=torch.int32).view(3, 2)
    assert collectives.sum(whole[1:]).tolist() == [[4, 6], [8, 10]]
    assert whole.tolist() == [[0, 1], [4, 6], [8, 10]]  # a part of a larger one, in place
    collectives.start_sum(whole)()
    assert whole.tolist() == [[0, 2], [8, 12], [16, 20]]
    assert collectives.gather(whole[:1]).tolist() == [[0, 2], [0, 2]]
    assert collectives.reduce_scatter(whole[:2]).tolist() == [[0, 4]]
    assert (collectives.rank, collectives.world_size) == (0, 2)
