"""What the watchdogs of a group tell each other, and which ranks they blame when nobody makes progress."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from torch.distributed.distributed_c10d import Store

from zerovl.text_format import plural

STORE_SECONDS = 30
_END = "end"


@dataclass(frozen=True)
class Heartbeat:
    """What a rank publishes of itself every few seconds."""

    rank: int
    host: str
    pid: int
    number: int  # counts up while the process lives
    step: int
    calls: int
    phase: str
    waiting: bool
    idle: float  # seconds without progress
    left: bool = False  # it is done

    def where(self) -> str:
        """Return the rank's place and what it does, for a message."""
        doing = f"waiting in collective {self.calls}" if self.waiting else self.phase
        return f"rank {self.rank} (host {self.host}, pid {self.pid}, step {self.step}: {doing})"


def blamed_ranks(heartbeats: list[Heartbeat], silent: set[int]) -> list[int]:
    """Return the ranks that keep the others waiting: the silent ones, else those furthest behind that do not wait."""
    if silent:
        return sorted(silent)
    candidates = [each for each in heartbeats if not each.waiting] or heartbeats
    furthest = min((each.step, each.calls) for each in candidates)
    return sorted(each.rank for each in candidates if (each.step, each.calls) == furthest)


def stuck_message(heartbeats: list[Heartbeat], silent: set[int], missing: set[int], minutes: float) -> str:
    """Return one line that names the blamed ranks, where they are and what they do; `missing` never published."""
    known = {each.rank: each for each in heartbeats}
    blamed = blamed_ranks(heartbeats, silent)
    places = [f"rank {rank} (never heard of)" if rank in missing else known[rank].where() for rank in blamed]
    ranks = ", ".join(places)
    head = f"no progress for {minutes:g} minutes (machine.watchdog_minutes): {ranks}"
    waiting = len(known.keys() | missing) - len(blamed)
    if silent:
        verb = "does not answer: stopped, or its machine is gone" if len(blamed) == 1 else "do not answer"
    elif all(known[rank].waiting for rank in blamed):
        return f"{head}: every rank waits for another; look at the network between the hosts"
    else:
        verb = "is stuck" if len(blamed) == 1 else "are stuck"
    verb_of_others = "waits" if waiting == 1 else "wait"
    others = f"; {plural(waiting, 'other')} {verb_of_others} for it" if waiting else ""
    return f"{head} {verb}{others}"


class Heartbeats:
    """The heartbeats of a group of ranks, over a store connection of their own.

    A TCPStore client serves one call at a time, so it is never shared with the main thread.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store.clone()
        self._store.set_timeout(timedelta(seconds=STORE_SECONDS))
        self.rank = rank
        self.world_size = world_size

    def publish(self, heartbeat: Heartbeat) -> None:
        """Put this rank's newest heartbeat in place of the one before."""
        self._store.set(f"heartbeat/{heartbeat.rank}", json.dumps(asdict(heartbeat)))

    def newest(self) -> dict[int, Heartbeat]:
        """Return the newest heartbeat of each other rank that has published one."""
        others = [rank for rank in range(self.world_size) if rank != self.rank]
        return {rank: Heartbeat(**json.loads(text)) for rank in others if (text := self._read(f"heartbeat/{rank}"))}

    def claim_end(self, end: dict[str, Any]) -> dict[str, Any]:
        """Propose how the group ends; the first proposal holds and is returned."""
        held: dict[str, Any] = json.loads(self._store.compare_set(_END, "", json.dumps(end)))
        return held

    def end(self) -> dict[str, Any] | None:
        """Return how the group ends, None while it goes on."""
        text = self._read(_END)
        return json.loads(text) if text else None

    def acknowledge(self) -> None:
        """Say that this rank knows of the end."""
        self._store.add("heard", 1)

    def heard(self) -> int:
        """Return how many ranks know of the end."""
        return int(self._store.add("heard", 0))

    def _read(self, key: str) -> str:
        return self._store.get(key).decode() if self._store.check([key]) else ""
