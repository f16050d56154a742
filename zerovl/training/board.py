"""What the watchdogs of a gang tell each other, and whom they find at fault."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from torch.distributed.distributed_c10d import Store

STORE_SECONDS = 30
_END = "end"


@dataclass(frozen=True)
class Beat:
    """What a rank publishes of itself."""

    rank: int
    host: str
    pid: int
    number: int  # counts up while the process lives
    step: int
    calls: int
    phase: str
    waiting: bool
    idle: float  # seconds without headway
    left: bool = False  # it is done

    def where(self) -> str:
        doing = f"waiting in collective {self.calls}" if self.waiting else self.phase
        return f"rank {self.rank} (host {self.host}, pid {self.pid}, step {self.step}: {doing})"


def culprits(beats: list[Beat], silent: set[int]) -> list[int]:
    """Ranks that keep the others waiting: the silent ones, else those furthest behind that do not wait themselves."""
    if silent:
        return sorted(silent)
    candidates = [beat for beat in beats if not beat.waiting] or beats
    furthest = min((beat.step, beat.calls) for beat in candidates)
    return sorted(beat.rank for beat in candidates if (beat.step, beat.calls) == furthest)


def verdict(beats: list[Beat], silent: set[int], missing: set[int], minutes: float) -> str:
    """One line that names the ranks at fault, where they are and what they do; `missing` ones never published."""
    known = {beat.rank: beat for beat in beats}
    guilty = culprits(beats, silent)
    places = [f"rank {rank} (never heard of)" if rank in missing else known[rank].where() for rank in guilty]
    ranks = ", ".join(places)
    head = f"no headway for {minutes:g} minutes (train.watchdog_minutes): {ranks}"
    waiting = len(known.keys() | missing) - len(guilty)
    if silent:
        verb = "does not answer: stopped, or its machine is gone" if len(guilty) == 1 else "do not answer"
    elif all(known[rank].waiting for rank in guilty):
        return f"{head}: every rank waits for another; look at the network between the hosts"
    else:
        verb = "is stuck" if len(guilty) == 1 else "are stuck"
    others = f"; {waiting} other{'s' * (waiting > 1)} wait{'s' * (waiting == 1)} for it" if waiting else ""
    return f"{head} {verb}{others}"


class Board:
    """What the watchdogs of a gang tell each other, over a store connection of their own.

    A TCPStore client serves one call at a time, so it is never shared with the main thread.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store.clone()
        self._store.set_timeout(timedelta(seconds=STORE_SECONDS))
        self.rank = rank
        self.world_size = world_size

    def publish(self, beat: Beat) -> None:
        self._store.set(f"beat/{beat.rank}", json.dumps(asdict(beat)))

    def beats(self) -> dict[int, Beat]:
        """The newest beat of each other rank that has published one."""
        others = [rank for rank in range(self.world_size) if rank != self.rank]
        return {rank: Beat(**json.loads(text)) for rank in others if (text := self._read(f"beat/{rank}"))}

    def claim_end(self, end: dict[str, Any]) -> dict[str, Any]:
        """Propose how the gang ends; the first proposal holds and is returned."""
        held: dict[str, Any] = json.loads(self._store.compare_set(_END, "", json.dumps(end)))
        return held

    def end(self) -> dict[str, Any] | None:
        text = self._read(_END)
        return json.loads(text) if text else None

    def acknowledge(self) -> None:
        self._store.add("heard", 1)

    def heard(self) -> int:
        """Ranks that know of the end."""
        return int(self._store.add("heard", 0))

    def _read(self, key: str) -> str:
        return self._store.get(key).decode() if self._store.check([key]) else ""
