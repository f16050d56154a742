"""What a device computes, and when, read by the host a while later, so that neither waits for the other."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor


def read_later(numbers: Tensor) -> Callable[[], list[float]]:
    """Begin to bring a few numbers (k,) to the host; the returned function waits for them, and for nothing behind them.

    What is in the host's memory already is read at once.
    """
    numbers = numbers.detach()
    if not numbers.is_cuda:
        values: list[float] = numbers.tolist()
        return lambda: values
    host = torch.empty_like(numbers, device="cpu", pin_memory=True)  # a copy to other memory would wait
    host.copy_(numbers, non_blocking=True)
    there = torch.cuda.Event()
    there.record()

    def wait() -> list[float]:
        there.synchronize()
        found: list[float] = host.tolist()
        return found

    return wait


class Moment:
    """Now, in the order of what the device was given: the host of a GPU is often ahead, and its clock tells little."""

    def __init__(self, device: torch.device) -> None:
        self._at = time.perf_counter()
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self._event:
            self._event.record()

    def seconds_until(self, later: Moment) -> float:
        """Return the time in between; the device must have come to `later`."""
        if self._event is None or later._event is None:
            return later._at - self._at
        milliseconds: float = self._event.elapsed_time(later._event)
        return milliseconds / 1000
