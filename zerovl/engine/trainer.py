"""The training loop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Literal, Protocol

from zerovl.distributed.activity import SAVING
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.clipping import clip_gradients
from zerovl.engine.forward import Inputs
from zerovl.engine.metrics_log import MetricsLog
from zerovl.engine.optimiser import Schedule, set_lr
from zerovl.engine.precision import Precision
from zerovl.engine.progress import Progress
from zerovl.engine.state import TrainingState
from zerovl.engine.steps import Step
from zerovl.errors import ZeroVLError
from zerovl.memory import is_out_of_memory
from zerovl.objective.mixup import Mixup
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
class Cadence:
    """When a checkpoint is due: every so many steps, or minutes after the last one."""

    steps: int
    minutes: float

    def due(self, step: int, last_time: float) -> bool:
        """Whether a checkpoint is due after so many steps, `last_time` being when the last one was saved."""
        return step % self.steps == 0 or time.monotonic() - last_time > 60 * self.minutes


@dataclass(frozen=True)
class PeriodicEvaluation:
    """Scores a sample of the validation pairs every so many steps and after the last one."""

    every: int
    score: Callable[[], dict[str, float]]  # by column of the log
    is_collective: bool = False  # a sharded model goes forward on all ranks together

    def due(self, done: int, steps: int) -> bool:
        """Whether the sample is to be scored after `done` of `steps` steps."""
        return done % self.every == 0 or done == steps


@dataclass(frozen=True)
class Outcome:
    """How training ended, after which step, and whether that step is saved."""

    state: Literal["finished", "interrupted"]
    step: int
    saved: bool


class StopRequest:
    """SIGTERM or SIGINT: finish the step, save, leave. A second SIGINT leaves at once. SIGUSR1: save and go on."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.save_asked = False

    def install(self) -> None:
        """Take over the three signals; in the main thread."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGUSR1, self._ask_save)

    def take_save(self) -> bool:
        """Whether a save was asked for since the last call."""
        asked, self.save_asked = self.save_asked, False
        return asked

    def _ask_save(self, _number: int, _frame: FrameType | None) -> None:
        self.save_asked = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


@dataclass(frozen=True)
class Trainer:
    """Everything a run needs; `train` goes from `start_step` to `schedule.steps`."""

    state: TrainingState
    step: Step
    schedule: Schedule
    mixup: Mixup
    precision: Precision
    ranks: Ranks
    checkpoints: Checkpoints
    cadence: Cadence
    clip_norm: float  # 0: no clipping
    evaluation: PeriodicEvaluation | None
    stop: StopRequest
    log: MetricsLog | None  # on rank 0

    def train(self, batches: Iterable[Batch], start_step: int, progress: Progress) -> Outcome:
        """Train over `batches`, whose first one is that of `start_step`; raises `ZeroVLError`."""
        last_save = time.monotonic()
        self.state.model.train()
        for batch in self.ranks.activity.loading(batches, start_step):
            lr = self.schedule.lr(batch.step)
            loss, facts = self._update(batch, lr)
            done = batch.step + 1
            rate = progress.step(loss, lr)
            row = self._row(batch, loss, lr, rate) | facts | self._save_cost()
            if self.evaluation and self.evaluation.due(done, self.schedule.steps):
                row |= self._score(progress)
            if self.log:
                self.log.write(row)
            stopping, asked, due = self.ranks.any(
                self.stop.name is not None,
                self.stop.take_save(),
                self.ranks.is_first and self.cadence.due(done, last_save),
            )
            leaving = stopping or done == self.schedule.steps
            if asked and self.ranks.is_first:
                progress.say(f"SIGUSR1: saves after step {done} and goes on")
            saved = False
            if leaving or asked or due:
                with self.ranks.activity.during(SAVING):
                    self.checkpoints.begin(self.state, done, progress.say)
                    saved = leaving and self.checkpoints.finish(progress.say)
                last_save = time.monotonic()
                progress.pause()
            else:
                self.checkpoints.poll(progress.say)
            if leaving and done < self.schedule.steps:
                return Outcome("interrupted", done, saved)
        return Outcome("finished", self.schedule.steps, True)

    def _update(self, batch: Batch, lr: float) -> tuple[float, dict[str, float]]:
        """One optimiser step: the loss, and what else is worth a column in the log.

        Raises `ZeroVLError` where the loss is not finite or memory runs out.
        """
        optimiser, scaler = self.state.optimiser, self.precision.scaler
        set_lr(optimiser, lr)
        optimiser.zero_grad(set_to_none=True)
        with _memory_error(partial(out_of_memory, batch)):
            loss = float(self.step(batch.micro_batches, self.mixup.draw(batch.step), batch.step))
        if not math.isfinite(loss):
            raise not_finite(batch, loss, self.checkpoints)
        facts: dict[str, float] = {}
        with _memory_error(partial(out_of_memory_in_optimiser, batch)):
            if self.clip_norm:
                scaler.unscale_(optimiser)
                norm = clip_gradients(self.state.model, self.clip_norm, self.ranks)
                facts |= {"gradient_norm": norm} if math.isfinite(norm) else {}
            if scaler.is_enabled():
                facts["loss_scale"] = scaler.get_scale()
            scaler.step(optimiser)
            scaler.update()
        self.state.model.clamp_temperature()
        self.state.average.update()
        return loss, facts

    def _row(self, batch: Batch, loss: float, lr: float, rate: float) -> dict[str, Any]:
        model = self.state.model
        return {
            "step": batch.step,
            "loss": loss,
            "lr": lr,
            "temperature": float(model.temperature.detach()),
            **({} if model.architecture.logit_bias is None else {"logit_bias": float(model.logit_bias.detach())}),
            "source": batch.source,
            "pairs_per_second": round(rate, 1),
        }

    def _score(self, progress: Progress) -> dict[str, float]:
        """Scores of the validation sample; on rank 0 alone where it can be, the others wait at the next collective."""
        if self.evaluation is None or not (self.ranks.is_first or self.evaluation.is_collective):
            return {}
        self.state.model.eval()
        with self.ranks.activity.during("scoring validation pairs"), self.state.average.applied():
            scores = self.evaluation.score()
        self.state.model.train()
        progress.pause()
        return scores

    def _save_cost(self) -> dict[str, float]:
        """Seconds that checkpoints held up training since the last row."""
        seconds = self.checkpoints.take_blocked()
        return {"save_seconds": round(seconds, 4)} if seconds else {}


@contextmanager
def _memory_error(message: Callable[[RuntimeError], ZeroVLError]) -> Iterator[None]:
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


def not_finite(batch: Batch, loss: float, checkpoints: Checkpoints) -> ZeroVLError:
    """Return the error of a loss that is NaN or infinite: where it happened, and the command to go on with."""
    keys = [key for part in batch.micro_batches for key in getattr(part, "keys", [])]
    saved = [step for step in checkpoints.steps() if step <= batch.step]
    fixes = "a lower train.lr, a train.clip_norm (for example 1.0), or train.precision float32"
    if saved:
        origin = f"{checkpoints.folder.parent.name}@{saved[-1]}"
        way = (
            f"the last checkpoint is of step {saved[-1]}: set {fixes} in params.yaml, then go on from there by "
            f"`zerovl train --from {origin}`, or in the pipeline by train.continue_from: {origin}"
        )
    else:
        way = f"there is no checkpoint yet: set {fixes}, and run it again"
    return ZeroVLError(
        f"loss is {loss} in step {batch.step} (source {batch.source}, {len(keys)} pairs on this rank: "
        f"{', '.join(keys[:8])}, ...). Look at these pairs; {way}"
    )
