"""What a rank does now: marked by the main thread, read by the watchdog."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

SAVING = "saving"

Item = TypeVar("Item")


class Activity:
    """What this rank does now; set by the main thread, read by the watchdog.

    Each mark is a few assignments; calls of collectives are counted from the start of the process.
    """

    def __init__(self) -> None:
        self.marks = 0
        self.step = 0
        self.calls = 0
        self.data_seconds = 0.0  # that the last batch was waited for, until its first micro-batch
        self.phase = "starting"
        self.waiting = False
        self._file: int | None = None

    def keep_step_in(self, path: Path) -> None:
        """Write each step that begins into a file too, which outlives a rank that is killed."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)

    def mark(self, phase: str, step: int | None = None) -> None:
        """Say what comes now, and in which step."""
        self.phase = phase
        if step is not None:
            self.step = step
            if self._file is not None:
                with suppress(OSError):  # a full disk is no reason to end
                    os.pwrite(self._file, b"%20d" % step, 0)
        self.marks += 1

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """`phase` inside the block, then what it was before."""
        before = self.phase
        self.mark(phase)
        yield
        self.mark(before)  # after an error the phase stays: that is where it happened

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Around a collective call: counted, and marked as waiting for the others."""
        self.calls += 1
        self.waiting = True
        self.marks += 1
        yield
        self.waiting = False
        self.marks += 1

    def loading(self, batches: Iterable[Item], start_step: int) -> Iterator[Item]:
        """Go through the batches of the steps from `start_step` on, marking and timing the wait for each."""
        step = start_step
        source = iter(batches)
        while True:
            self.mark("loading data", step)
            begin = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self.data_seconds = time.perf_counter() - begin
            self.mark("computing")
            yield batch
            step += 1
