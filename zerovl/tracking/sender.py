"""`python -m zerovl.tracking.sender RUN NAME`: a process that tells one tracker of one run.

It is apart from the training, so that a library that is slow, hangs or crashes costs no step. It follows the log until
its standard input says, in one word, how the run stands; where that ends without a word, the training was killed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TextIO, cast, get_args

from zerovl import log
from zerovl.files import try_lock
from zerovl.log import logger
from zerovl.text_format import plural
from zerovl.tracking.base import State, without_credentials
from zerovl.tracking.delivery import Delivery
from zerovl.tracking.facts import FOLDER, read_facts
from zerovl.tracking.trackers import TRACKERS

LAST_SECONDS = 10.0  # for what is left to tell when the run has ended
_EVERY_SECONDS = 1.0
_ORPHAN_SECONDS = 60.0  # for what is left to tell when the training was killed
_LONGEST_WAIT = 60.0  # before a tracker that was away is tried again
_SHOWN = 200  # characters of an error


class Sender:
    """Follows a run for one tracker, and says once where the tracker is away, and once that it is back."""

    def __init__(self, name: str, delivery: Delivery, place: str) -> None:
        self._name, self._delivery, self._place = name, delivery, place
        self._away = False
        self._wait, self._next = _EVERY_SECONDS, 0.0

    def follow(self, ended: Callable[[float], State | None]) -> State:
        """Tell what is new until `ended`, which waits for so many seconds, returns how the run stands; return that."""
        while (state := ended(_EVERY_SECONDS)) is None:
            if time.monotonic() >= self._next:
                self._attempt(self._delivery.tell)
        return state

    def finish(self, state: State) -> bool:
        """Tell the rest, for a bounded time; returns whether all of it was told."""
        deadline = time.monotonic() + LAST_SECONDS
        while not self._attempt(lambda: self._delivery.finish(state)):
            if time.monotonic() > deadline:
                left = plural(self._delivery.left(), "step")
                logger().warning(
                    f"{self._name}: {self._place} did not come back; {left} and what came after them are kept in "
                    f"{self._delivery.folder} and not told. `zerovl track` tells them once it is there"
                )
                return False
            time.sleep(_EVERY_SECONDS)
        return True

    def _attempt(self, tell: Callable[[], None]) -> bool:
        try:
            tell()
        except Exception as error:  # whatever a library raises: the training goes on
            if not self._away:
                said = without_credentials(f"{type(error).__name__}: {error}")  # libraries name the whole address
                text = " ".join(said.split())[:_SHOWN]
                logger().warning(
                    f"{self._name}: {self._place} does not take what it is told ({text}); nothing waits for it, the "
                    "run's log keeps everything, and it is tried again. Start the server, or correct its address"
                )
            self._away = True
            self._next = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            return False
        if self._away:
            logger().info(f"{self._name}: {self._place} is back, and knows all steps")
        self._away, self._wait = False, _EVERY_SECONDS
        return True


def main(folder: Path, name: str) -> int:
    """Tell the tracker of the run in `folder`; returns 0 where it knows everything at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the training's, which then says how it ended
    log.setup()
    facts = read_facts(folder)
    if facts is None:
        return 1
    tracker = TRACKERS[name].make(facts.project)
    with open(folder / FOLDER / f"{name}.lock", "a", encoding="utf-8") as lock:
        _wait_for(lock, name, folder)
        sender = Sender(name, Delivery(name, tracker, folder), tracker.place())
        return 0 if sender.finish(sender.follow(_ended)) else 1


def _wait_for(lock: TextIO, name: str, folder: Path) -> None:
    """Wait for the sender of an attempt that was killed, which is about to end, or of a training that goes on."""
    told = False
    while not try_lock(lock.fileno(), folder):
        if not told:
            logger().info(f"{name}: waiting for another process that tells of {folder}, until it ends")
            told = True
        time.sleep(_EVERY_SECONDS)


def end_with(parent: int) -> None:
    """End this process, whatever its library hangs in, a while after it has another parent than that: it was killed."""
    while os.getppid() == parent:
        time.sleep(_EVERY_SECONDS)
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def _ended(seconds: float) -> State | None:
    """The word on standard input, waited for so long; "failed" where whoever would say it is gone."""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return None
    word = os.read(sys.stdin.fileno(), 100).decode().strip()
    return cast(State, word) if word in get_args(State) else "failed"


if __name__ == "__main__":
    Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    status = main(Path(sys.argv[1]), sys.argv[2])
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)  # threads of a library that wait for its server would keep the process
