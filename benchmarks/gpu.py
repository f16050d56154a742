"""Clock and memory of an accelerator, and the minutes it is lent for; on a CPU (for `--smoke`) no memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch

from benchmarks.common import GIB, Record, rounded


class MinutesAreUp(BaseException):
    """The rest is for another run. No `Exception`: what records errors lets it pass."""


class Deadline:
    """No new figure is begun after so many minutes."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def check(self) -> None:
        """Raises `MinutesAreUp` where they are."""
        if time.monotonic() > self._end:
            raise MinutesAreUp


def clock(device: torch.device) -> Callable[[], float]:
    """Wall-clock seconds, read when the device has done all that it was given."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def memory(function: Callable[[], object], device: torch.device) -> Record:
    """GiB allocated at most during a call, and how much of it was not there before; nothing on a CPU."""
    if device.type != "cuda":
        function()
        return {}
    free(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    return {"peak_gib": rounded(peak / GIB), "extra_gib": rounded((peak - before) / GIB)}


def free(device: torch.device) -> None:
    """Give back what a failed or finished variant has left in the allocator's cache; nothing on a CPU."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
