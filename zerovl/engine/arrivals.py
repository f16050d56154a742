"""The micro-batches of a step as the loader brings them, and how long the device had nothing to do for want of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from zerovl.distributed.late_values import Moment
from zerovl.distributed.ranks import Ranks
from zerovl.engine.forward import Inputs


@dataclass(frozen=True)
class Wait:
    """A wait of the host for inputs, between two moments in the order of what the device was given."""

    begun: Moment
    ended: Moment
    host_seconds: float

    def seconds(self) -> float:
        """Return how long the device waited too: it may have had work left from before. It must have come so far."""
        return min(self.host_seconds, self.begun.seconds_until(self.ended))


class Arrivals(Sequence[Inputs]):
    """The micro-batches of a step, of which the first is there; the wait for each other one is marked and measured."""

    def __init__(self, micro_batches: Sequence[Inputs], ranks: Ranks) -> None:
        self.waits: list[Wait] = []
        self._micro_batches = micro_batches
        self._ranks = ranks
        self._there = 1

    def __len__(self) -> int:
        return len(self._micro_batches)

    @overload
    def __getitem__(self, index: int) -> Inputs: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Inputs]: ...

    def __getitem__(self, index: int | slice) -> Inputs | Sequence[Inputs]:
        places = range(len(self))[index]
        needed = max(places, default=-1) + 1 if isinstance(places, range) else places + 1
        while self._there < needed:
            self._wait_for(self._there)
            self._there += 1
        return self._micro_batches[index]

    def __iter__(self) -> Iterator[Inputs]:
        # That of `Sequence` would take an IndexError of the loader for the end.
        return (self[place] for place in range(len(self)))

    def _wait_for(self, place: int) -> None:
        activity, device = self._ranks.activity, self._ranks.device
        activity.mark("loading data")
        begun, host = Moment(device), time.perf_counter()
        _ = self._micro_batches[place]
        self.waits.append(Wait(begun, Moment(device), time.perf_counter() - host))
        activity.mark("computing")
