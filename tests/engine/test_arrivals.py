"""What the trainer knows of waits for micro-batches in the middle of a step."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.towers import CPU, batch
from zerovl.distributed import late_values
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.late_values import Moment
from zerovl.distributed.ranks import Ranks
from zerovl.engine import arrivals as arrivals_module
from zerovl.engine.arrivals import Arrivals, Wait


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (late_values, arrivals_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Slow(Sequence[Any]):
    """Micro-batches of which each takes as many seconds as its place, when it is looked at for the first time."""

    def __init__(self, clock: Clock, ranks: Ranks) -> None:
        self.parts, self.seen = batch(4), {0}
        self.clock, self.ranks = clock, ranks
        self.phases: list[str] = []

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: Any) -> Any:
        if index not in self.seen:
            self.phases.append(self.ranks.activity.phase)
            self.clock.now += index
            self.seen.add(index)
        return self.parts[index]


def test_each_micro_batch_is_waited_for_once(clock: Clock) -> None:
    ranks = Ranks(0, 1, CPU, OneRank())
    slow = Slow(clock, ranks)
    arrivals = Arrivals(slow, ranks)
    ranks.activity.mark("computing")
    assert len(arrivals) == 4
    for part, expected in zip(arrivals, slow.parts, strict=True):
        assert part is expected
        assert ranks.activity.phase == "computing"
        clock.now += 100.0  # computes
    assert list(arrivals) == slow.parts  # the second pass
    assert slow.phases == ["loading data"] * 3
    assert [wait.seconds() for wait in arrivals.waits] == [1.0, 2.0, 3.0]


def test_an_index_error_of_the_loader_is_not_the_end(clock: Clock) -> None:
    ranks = Ranks(0, 1, CPU, OneRank())
    slow = Slow(clock, ranks)
    del slow.parts[2:]
    with pytest.raises(IndexError):
        list(Arrivals(Longer(slow), ranks))


class Longer(Sequence[Any]):
    """Micro-batches that say they are four, whatever there is."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: Any) -> Any:
        return self.parts[index]


def test_a_device_that_has_work_left_does_not_wait() -> None:
    early, later = (SimpleNamespace(seconds_until=lambda _: 0.25) for _ in range(2))
    assert Wait(early, later, host_seconds=3.0).seconds() == 0.25  # type: ignore[arg-type]
    assert Wait(Moment(CPU), Moment(CPU), host_seconds=0.0).seconds() == 0.0
