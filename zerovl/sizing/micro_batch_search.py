"""`train.micro_batch: auto`: the micro-batch that fits and that a larger one does not beat.

Sizes grow while pairs per second grow; each is tried with a real forward and backward pass beside as
much memory as training will take later. Running out of memory in a trial costs that size, nothing
else: what the trial held is given back before the next one.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zerovl import text_format
from zerovl.errors import ZeroVLError
from zerovl.memory import is_out_of_memory
from zerovl.sizing.activations import Activations, release, run_backward, untouched
from zerovl.sizing.decisions import MicroBatchDecision

GAIN = 0.03  # a size must be this much faster than the one before
_SMALLEST = 8  # pairs; where to begin
_REPEATS = 3  # passes a trial; the fastest counts
Trial = Callable[[int], float | None]  # m -> pairs per second, None where memory ran out
Prepare = Callable[[int], Callable[[], Sequence[Tensor]]]  # m -> a forward pass over inputs that are there already
Agree = Callable[[float], float]  # the smallest value over ranks


def candidates(local_batch: int) -> list[int]:
    """Divisors of the local batch, ascending: powers of two, or all where it has too few of these."""
    divisors = [size for size in range(1, local_batch + 1) if local_batch % size == 0]
    powers = [size for size in divisors if size & (size - 1) == 0]
    return powers if powers[-1] >= min(_SMALLEST, local_batch) else divisors


def find(local_batch: int, memory: Activations, room: int, trial: Trial, agree: Agree) -> MicroBatchDecision:
    """The micro-batch for `local_batch` pairs where `room` bytes are there for activations.

    All ranks take part, with the same `local_batch`; they see the same agreed numbers, so they choose
    alike. Raises `ZeroVLError` where not even the smallest size runs.
    """
    room = int(agree(room))
    sizes = candidates(local_batch)
    # What one rank measures may differ from another's by a few bytes: the decision is agreed on, too.
    fitting = int(agree(len([size for size in sizes if memory.peak(size) <= room])))
    begin = max(0, min(fitting, len([size for size in sizes if size <= _SMALLEST])) - 1)
    first, rate = _first_that_runs(sizes[: begin + 1], trial, agree, room)
    best, why = first, "the local batch ends there"
    for size in sizes[sizes.index(first) + 1 :]:
        if sizes.index(size) >= fitting:
            why = f"{size} would need {text_format.size(memory.peak(size))} of {text_format.size(room)}"
            break
        found = agree(trial(size) or 0.0)
        if not found:
            why = f"memory ran out at {size}"
            break
        if found < rate * (1 + GAIN):
            why = f"{size} is no faster ({found:.0f} to {rate:.0f} pairs/s)"
            break
        best, rate = size, found
    return MicroBatchDecision(best, why)


def _first_that_runs(sizes: Sequence[int], trial: Trial, agree: Agree, room: int) -> tuple[int, float]:
    for size in reversed(sizes):
        rate = agree(trial(size) or 0.0)
        if rate:
            return size, rate
    raise ZeroVLError(
        f"train.micro_batch auto: memory runs out with {sizes[0]} pairs at once ({text_format.size(room)} free for "
        "activations); set machine.activation_checkpointing to true, choose smaller towers, or free some memory"
    )


@dataclass(frozen=True)
class RealTrial:
    """Pairs per second of forward and backward passes; leaves the model, random states and memory as they were."""

    model: nn.Module
    prepare: Prepare
    device: torch.device
    ballast: int  # bytes that training will take beside activations

    def __call__(self, pairs: int) -> float | None:
        try:
            with untouched(self.model, self.device):
                return pairs / self._seconds(pairs)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # The traceback holds the frames, and these the activations: without it they are garbage.
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = error.__context__ = None
        release(self.device)
        return None

    def _seconds(self, pairs: int) -> float:
        ballast = torch.empty(self.ballast, dtype=torch.uint8, device=self.device)
        run = self.prepare(pairs)
        seconds = []
        for _ in range(1 + _REPEATS):  # the first one warms up
            start = self._now()
            run_backward(run())
            seconds.append(self._now() - start)
        del ballast
        return min(seconds[1:])

    def _now(self) -> float:
        """When the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
