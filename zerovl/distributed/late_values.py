"""Numbers that a device computes and the host reads a while later, so that neither waits for the other."""

from __future__ import annotations

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
