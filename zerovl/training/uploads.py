"""Checkpoints on their way to S3 while training goes on: one at a time, the newest waits, older ones are skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol

from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.s3_files import Told
from zerovl.training.copied_checkpoints import Snapshot

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between attempts while the server is away
_READ_AGAIN = 3  # failed attempts at the end, after which reading a file for its digest is no sign of life any more


class Place(Protocol):
    """Where copies go; `zerovl.training.copied_checkpoints.CopiedCheckpoints` is one."""

    @property
    def uri(self) -> str:
        """What messages call it."""

    def upload(self, files: Snapshot, told: Told) -> None:
        """Write a copy, whole or not at all."""

    def drop_old(self, step: int, keep: int, keep_every: int) -> None:
        """Remove what newer copies replace."""


@dataclass(frozen=True)
class Kept:
    """Which copies stay: the newest ones, and every so many-th for good (0: none)."""

    newest: int
    every: int


@dataclass
class Counts:
    """What came of the checkpoints since the start of this process."""

    copied: int = 0
    skipped: int = 0  # a newer one was there before their turn came
    failed: int = 0  # attempts that the server or the network ended


class _SupersededError(Exception):
    """A newer checkpoint is to go first, or nobody waits any more."""


class Uploads:
    """A thread that copies the checkpoints that it is offered; on rank 0. It raises nothing, and says what failed once.

    The thread is a daemon: a process may leave at any time, and what it was sending is then no copy.
    """

    def __init__(
        self, place: Place, kept: Kept, opened: Callable[[int], AbstractContextManager[Snapshot]], copied: int = 0
    ) -> None:
        """`opened` opens the files of a step; `copied` is the newest one that the place has already, 0 for none."""
        self.counts = Counts()
        self._place, self._kept, self._opened = place, kept, opened
        self._state = Condition()
        self._copied = copied  # the last one
        self._waiting: int | None = None
        self._running: int | None = None
        self._hurried = False  # only the newest counts any more
        self._closed = False
        self._moves = 0  # signs of life of all uploads: bytes that arrived, or were read for their digest
        self._reading_counts_until = _READ_AGAIN  # failures
        self._problem = ""  # of the last attempt
        self._said_old = False
        self._thread: Thread | None = None

    def offer(self, step: int) -> None:
        """Copy the whole checkpoint of `step` as soon as nothing else is on its way; from any thread."""
        with self._state:
            self._take_in(step)

    def finish(self, step: int, quiet_seconds: float, tick: Callable[[], None]) -> bool:
        """Wait until `step` is copied and what it replaces is gone; returns whether it is copied.

        An older one makes way, and nothing is copied afterwards. Gives up when no byte was read or has arrived for so
        long. `tick` is called about once a second.
        """
        with self._state:
            if step not in (self._copied, self._running, self._waiting):
                self._take_in(step)
            self._hurried = True
            self._reading_counts_until = self.counts.failed + _READ_AGAIN
            self._state.notify_all()
            try:
                self._wait_for(step, quiet_seconds, tick)
            finally:  # also after Ctrl-C
                self._closed = True
                self._state.notify_all()
            return self._copied == step

    def _wait_for(self, step: int, quiet_seconds: float, tick: Callable[[], None]) -> None:
        moves, since = self._moves, time.monotonic()
        while (self._copied != step or self._running) and time.monotonic() - since < quiet_seconds:
            self._state.wait(min(1.0, quiet_seconds))
            if self._moves != moves:
                moves, since = self._moves, time.monotonic()
            tick()

    @property
    def problem(self) -> str:
        """What ended the last attempt; empty where nothing did."""
        return self._problem

    def _take_in(self, step: int) -> None:
        if self._waiting is not None:
            self.counts.skipped += 1
        self._waiting = step
        self._state.notify_all()
        if self._thread is None:
            self._thread = Thread(target=self._work, name="checkpoint copies", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while True:
            with self._state:
                while self._waiting is None and not self._closed:
                    self._state.wait()
                if self._waiting is None or self._closed:
                    return
                step, self._waiting = self._waiting, None
                self._running = step
            problem = self._copy(step)
            with self._state:
                self._running = None
                if problem and not self._closed:
                    self._try_again_later(step, problem)
                    self._state.wait(FIRST_PAUSE if self._hurried else pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    pause = FIRST_PAUSE
                self._state.notify_all()

    def _copy(self, step: int) -> str:
        """Copy a checkpoint, or skip it; returns what was in the way, nothing where there is nothing to try again."""
        try:
            with self._opened(step) as files:
                self._place.upload(files, self._told(step))
        except (_SupersededError, FileNotFoundError):  # a newer one goes first, or has replaced it on the disk
            with self._state:
                self.counts.skipped += not self._closed
            return ""
        except ZeroVLError as error:
            return str(error)
        except Exception as error:  # whatever it is, training goes on
            return f"{self._place.uri}: the checkpoint of step {step} cannot be copied: {type(error).__name__}: {error}"
        with self._state:
            self._copied = step
            self.counts.copied += 1
            if self._problem:
                logger().info(f"{self._place.uri}: can be written again, the checkpoint of step {step} is there")
            self._problem = ""
            self._state.notify_all()
        self._drop_old(step)
        return ""

    def _drop_old(self, step: int) -> None:
        try:
            self._place.drop_old(step, self._kept.newest, self._kept.every)
        except Exception as error:  # whatever it is, the copy is there
            if not self._said_old:
                what = "" if isinstance(error, ZeroVLError) else f"{type(error).__name__}: "
                logger().warning(f"old copies of checkpoints stay (said once): {what}{error}")
            self._said_old = True

    def _try_again_later(self, step: int, problem: str) -> None:
        self.counts.failed += 1
        if not self._problem:
            logger().warning(f"{problem}. Training goes on, and the newest checkpoint is copied when it works again")
        self._problem = problem
        if self._waiting is None:
            self._waiting = step
        else:
            self.counts.skipped += 1

    def _told(self, step: int) -> Told:
        def told(count: int) -> None:
            with self._state:
                if count or self.counts.failed < self._reading_counts_until:
                    self._moves += 1
                if self._closed or (self._hurried and self._waiting is not None and self._waiting != step):
                    raise _SupersededError

        return told
