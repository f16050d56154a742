"""`train.micro_batch: auto`: the micro-batch that fits and that a larger one does not beat.

Sizes grow while pairs per second grow; each is tried with a real forward and backward pass beside as
much memory as training will take later. Running out of memory in a trial costs that size, nothing
else: what the trial held is given back before the next one.

Mixup pairs partners inside a micro-batch, so its size shapes the weights: a run finds it once and
keeps it in `runs/<fingerprint>/micro_batch.json`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, write_json
from zerovl.training.activations import Activations, release, run_backward, untouched
from zerovl.training.memory import is_out_of_memory, show_size

FILE = "micro_batch.json"
GAIN = 0.03  # a size must be this much faster than the one before
_SMALLEST = 8  # pairs; where to begin
_REPEATS = 3  # passes a trial; the fastest counts
Trial = Callable[[int], float | None]  # m -> pairs per second, None where memory ran out
Prepare = Callable[[int], Callable[[], Sequence[Tensor]]]  # m -> a forward pass over inputs that are there already
Agree = Callable[[float], float]  # the smallest value over ranks


@dataclass(frozen=True)
class Found:
    micro_batch: int
    why: str


def candidates(local_batch: int) -> list[int]:
    """Divisors of the local batch, ascending: powers of two, or all where it has too few of these."""
    divisors = [size for size in range(1, local_batch + 1) if local_batch % size == 0]
    powers = [size for size in divisors if size & (size - 1) == 0]
    return powers if powers[-1] >= min(_SMALLEST, local_batch) else divisors


def find(local_batch: int, memory: Activations, room: int, trial: Trial, agree: Agree) -> Found:
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
            why = f"{size} would need {show_size(memory.peak(size))} of {show_size(room)}"
            break
        found = agree(trial(size) or 0.0)
        if not found:
            why = f"memory ran out at {size}"
            break
        if found < rate * (1 + GAIN):
            why = f"{size} is no faster ({found:.0f} to {rate:.0f} pairs/s)"
            break
        best, rate = size, found
    return Found(best, why)


def _first_that_runs(sizes: Sequence[int], trial: Trial, agree: Agree, room: int) -> tuple[int, float]:
    for size in reversed(sizes):
        rate = agree(trial(size) or 0.0)
        if rate:
            return size, rate
    raise ZeroVLError(
        f"train.micro_batch auto: memory runs out with {sizes[0]} pairs at once ({show_size(room)} free for "
        "activations); set train.activation_checkpointing to true, choose smaller towers, or free some memory"
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


def read_found(folder: Path, local_batch: int) -> Found | None:
    """What a run found before, None where it has not; raises `ZeroVLError` where it fits no longer."""
    path = folder / FILE
    if not path.is_file():
        return None
    values: Any = read_json(path)
    size = values.get("micro_batch") if isinstance(values, dict) else None
    if not isinstance(size, int) or size < 1:
        raise ZeroVLError(f"{path}: holds no micro_batch; delete it, and it is found anew")
    if local_batch % size:
        raise ZeroVLError(
            f"{path}: this run trains with micro-batches of {size}, which do not divide {local_batch} pairs a rank; "
            "go on with the number of ranks that it began with, or set train.micro_batch to begin a new run"
        )
    return Found(size, "found when the run began")


def write_found(folder: Path, found: Found) -> None:
    write_json(folder / FILE, {"micro_batch": found.micro_batch, "why": found.why})
