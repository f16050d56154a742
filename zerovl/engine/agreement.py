"""What single ranks wish for, and all do: to stop, or to save."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from zerovl.distributed.ranks import Ranks


@dataclass(frozen=True)
class Wishes:
    """Of any rank: to stop, to save because a signal asks for it, to save because the last time is long ago."""

    stop: bool = False
    save: bool = False
    overdue: bool = False


class Agreement:
    """Tells each rank what the others wish, after the same step on all of them.

    Several ranks that run ahead of their devices learn it `Ranks.lag` steps late: until the device comes to a step's
    collective, the host has gone on.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._lag = ranks.lag if ranks.world_size > 1 else 0
        self._under_way: deque[Callable[[], tuple[bool, ...]]] = deque()
        self._fulfilled = 0  # of those under way, from before the last save

    def exchange(self, own: Wishes) -> Wishes:
        """Give what this rank wishes after a step, get what all do; a collective."""
        self._under_way.append(self._ranks.start_any(own.stop, own.save, own.overdue))
        if len(self._under_way) <= self._lag:
            return Wishes()
        stop, save, overdue = self._under_way.popleft()()
        if self._fulfilled:
            self._fulfilled -= 1
            return Wishes(stop)
        return Wishes(stop, save, overdue)

    def saved(self) -> None:
        """What was wished until now is saved: wishes for that which are still under way are fulfilled."""
        self._fulfilled = len(self._under_way)
