"""What ends a run in the middle of a step, said with the step, its pairs and the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.forward import Inputs
from zerovl.errors import ZeroVLError
from zerovl.memory import is_out_of_memory
from zerovl.text_format import plural


class Batch(Protocol):
    """The local part of one step's global batch; `zerovl.data.batches.loader.StepBatch` is one."""

    @property
    def step(self) -> int:
        """Number of the step, from 0."""

    @property
    def source(self) -> str:
        """Name of the source, or "mixed"."""

    @property
    def micro_batches(self) -> Sequence[Inputs]:
        """The rank's micro-batches, in order."""


@dataclass(frozen=True)
class Origin:
    """Where the numbers of a step come from; kept longer than its pixels."""

    step: int
    source: str
    keys: list[str]  # of this rank's pairs

    @classmethod
    def of(cls, batch: Batch) -> Origin:
        """Return the origin of what a batch leads to."""
        keys = [key for part in batch.micro_batches for key in getattr(part, "keys", [])]
        return cls(batch.step, batch.source, keys)


@contextmanager
def memory_errors_as(message: Callable[[RuntimeError], ZeroVLError]) -> Iterator[None]:
    """Where memory runs out in the block, `message` is raised in its place."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise message(error) from None


def out_of_memory(batch: Batch, error: RuntimeError) -> ZeroVLError:
    """Return the error of a forward or backward pass that ran out of memory, with the setting to change."""
    size = len(batch.micro_batches[0].images)
    if size > 1:
        fix = (
            f"set train.step to decoupled (the gradient stays the same), train.micro_batch to {size // 2}, and keep "
            "fewer graphs if any (machine.kept_graphs, machine.activation_budget)"
        )
    else:
        fix = "set machine.activation_checkpointing, or machine.shard_model on several ranks, or take smaller towers"
    return ZeroVLError(
        f"out of memory in step {batch.step} with {plural(size, 'pair')} at once ({_first_line(error)}); {fix}"
    )


def out_of_memory_in_optimiser(batch: Batch, error: RuntimeError) -> ZeroVLError:
    """Its first step makes AdamW's moments; no activations are there any more."""
    return ZeroVLError(
        f"out of memory in the optimiser of step {batch.step} ({_first_line(error)}): AdamW keeps 8 bytes for each "
        "parameter that learns, beside 8 of weight and gradient; set machine.shard_model on several ranks, "
        "freeze a tower with train.freeze, or take smaller towers"
    )


def _first_line(error: RuntimeError) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def not_finite(origin: Origin, loss: float, checkpoints: Checkpoints) -> ZeroVLError:
    """Return the error of a loss that is NaN or infinite: where it happened, and the command to go on with."""
    saved = [step for step in checkpoints.steps() if step <= origin.step]
    fixes = "a lower train.lr, a train.clip_norm (for example 1.0), or train.precision float32"
    if saved:
        reference = f"{checkpoints.folder.parent.name}@{saved[-1]}"
        way = (
            f"the last checkpoint is of step {saved[-1]}: set {fixes} in params.yaml, then go on from there by "
            f"`zerovl train --from {reference}`, or in the pipeline by train.continue_from: {reference}"
        )
    else:
        way = f"there is no checkpoint yet: set {fixes}, and run it again"
    return ZeroVLError(
        f"loss is {loss} in step {origin.step} (source {origin.source}, {len(origin.keys)} pairs on this rank: "
        f"{', '.join(origin.keys[:8])}, ...). Look at these pairs; {way}"
    )
