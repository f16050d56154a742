"""Work of rank 0 that may take longer than a collective may: the others wait in many short ones."""

from __future__ import annotations

from collections.abc import Callable
from threading import Semaphore

import pytest
import torch
from torch import Tensor

from tests.support.thread_ranks import ThreadRank, on_ranks
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.errors import ZeroVLError
from zerovl.training import checkpoint_copy as module

CPU = torch.device("cpu")


def test_the_others_wait_in_many_collectives_as_long_as_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_SECONDS", 0.001)
    met, done = Semaphore(0), []

    class Counted:
        """The collectives of a rank, whose sums are counted."""

        def __init__(self, rank: ThreadRank) -> None:
            self.world_size, self.gather, self.reduce_scatter = rank.world_size, rank.gather, rank.reduce_scatter
            self.rank, self.sums = rank, 0

        def sum(self, local: Tensor) -> Tensor:
            self.sums += 1
            if self.rank.rank == 1:
                met.release()
            return self.rank.sum(local)

    def work(moved: Callable[[], None]) -> None:
        assert met.acquire(timeout=10)  # rank 1 waits from the beginning
        for _ in range(4):
            moved()
            assert met.acquire(timeout=10)
        done.append("work")

    def run(rank: ThreadRank) -> tuple[int, list[str]]:
        collectives = Counted(rank)
        module.done_by_first(Ranks(rank.rank, 3, CPU, collectives), work)
        return collectives.sums, list(done)

    assert on_ranks(3, run) == [(5, ["work"])] * 3


def test_what_the_work_raises_is_raised_on_rank_0() -> None:
    def fail(moved: Callable[[], None]) -> None:
        moved()
        raise ZeroVLError("the server is away")

    with pytest.raises(ZeroVLError, match="the server is away"):
        module.done_by_first(Ranks(0, 2, CPU, OneRank()), fail)


def test_a_single_rank_works_by_itself_and_is_seen_to_move() -> None:
    ranks = Ranks(0, 1, CPU, OneRank())
    ranks.activity.mark("fetching")
    module.done_by_first(ranks, lambda moved: moved())
    assert (ranks.activity.marks, ranks.activity.phase) == (2, "fetching")
