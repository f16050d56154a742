"""The training loop."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor

from zerovl.distributed.activity import SAVING
from zerovl.distributed.late_values import Moment, read_later
from zerovl.distributed.ranks import Ranks
from zerovl.engine.agreement import Agreement, Wishes
from zerovl.engine.arrivals import Arrivals, Wait
from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.clipping import clip_gradients
from zerovl.engine.garbage import collected_every
from zerovl.engine.loss_watch import MOST_SKIPPED, LossWatch
from zerovl.engine.metrics_log import MetricsLog
from zerovl.engine.optimiser import Schedule, set_lr
from zerovl.engine.precision import Precision
from zerovl.engine.progress import Progress
from zerovl.engine.state import TrainingState
from zerovl.engine.step_errors import (
    Batch,
    Origin,
    memory_errors_as,
    out_of_memory,
    out_of_memory_in_optimiser,
)
from zerovl.engine.steps import Step
from zerovl.objective.mixup import Mixup


@dataclass(frozen=True)
class Cadence:
    """When a checkpoint is due: every so many steps, or minutes after the last one."""

    steps: int
    minutes: float

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        return step % self.steps == 0

    def overdue(self, last_time: float) -> bool:
        """Whether one is due because the last one was saved at `last_time`."""
        return time.monotonic() - last_time > 60 * self.minutes


@dataclass(frozen=True)
class PeriodicEvaluation:
    """Scores a sample of the validation pairs `times` times, evenly spread and last at the end, all ranks together."""

    times: int  # 1 or more; where there are fewer steps, after each of them
    score: Callable[[], dict[str, float]]  # by column of the log, the same on all ranks

    def due(self, done: int, steps: int) -> bool:
        """Whether the sample is to be scored after `done` of `steps` steps."""
        return done * self.times // steps > (done - 1) * self.times // steps


@dataclass(frozen=True)
class Outcome:
    """How training ended, after which step, and whether that step is saved."""

    state: Literal["finished", "interrupted"]
    step: int
    saved: bool


_READING_SECONDS = 1.0  # a second Ctrl-C within them is no answer to what the first one said


class StopRequest:
    """SIGTERM or SIGINT: finish the step, save, leave. SIGUSR1: save and go on.

    The first one is answered at once; a SIGINT that comes when the answer can have been read leaves without saving.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.save_asked = False
        self._answer: Callable[[str], None] = lambda _name: None
        self._read_at = math.inf

    def install(self, answer: Callable[[str], None]) -> None:
        """Take over the three signals, in the main thread; `answer` hears the name of the first one to stop."""
        self._answer = answer
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
        if self.name is None:
            self.name = signal.Signals(number).name
            self._answer(self.name)
            self._read_at = time.monotonic() + _READING_SECONDS
        elif number == signal.SIGINT and time.monotonic() > self._read_at:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Launched:
    """A step whose work is on its way to the device, and the numbers that the host will read of it."""

    origin: Origin
    lr: float
    begun: Moment  # when the step before it ended, or what was done in between
    ended: Moment
    waits: list[Wait]  # for its micro-batches
    names: tuple[str, ...]
    numbers: Callable[[], list[float]]  # waits for the device

    def waited(self) -> float:
        """Return the seconds that the device had nothing to do because a micro-batch was not there yet."""
        return sum(wait.seconds() for wait in self.waits)

    def found(self) -> dict[str, float]:
        """Return the numbers by name, once the device has come so far."""
        return dict(zip(self.names, self.numbers(), strict=True))

    def row(self, found: dict[str, float], rate: float, waited: float) -> dict[str, Any]:
        """Return the row of the log; a gradient that overflowed has no norm."""
        facts = {
            name: found[name] for name in ("gradient_norm", "loss_scale") if math.isfinite(found.get(name, math.nan))
        }
        return {
            "step": self.origin.step,
            "loss": found["loss"],
            "lr": self.lr,
            **{name: found[name] for name in ("temperature", "logit_bias") if name in found},
            "source": self.origin.source,
            "pairs_per_second": round(rate, 1),
            "data_seconds": round(waited, 4),
            **facts,
        }


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
        """Train over `batches`, whose first one is that of `start_step`; raises `ZeroVLError`.

        The host may be `Ranks.lag` steps ahead of the device: what a step found is then told during the next one, but
        before its weights are scored or saved.
        """
        last_save = time.monotonic()
        self.state.model.train()
        agreement = Agreement(self.ranks)
        watch = LossWatch(MOST_SKIPPED if self.precision.scaler.is_enabled() else 0, self.checkpoints)
        unread: deque[Launched] = deque()
        since = Moment(self.ranks.device)
        with collected_every() as collect:
            for batch in self.ranks.activity.loading(batches, start_step):
                done = batch.step + 1
                unread.append(self._update(batch, self.schedule.lr(batch.step), since))
                since = unread[-1].ended
                scoring = self.evaluation is not None and self.evaluation.due(done, self.schedule.steps)
                self._tell(unread, 1 if scoring else self.ranks.lag, progress, watch)
                if scoring:
                    self._tell(unread, 0, progress, watch, self._score)
                    since = Moment(self.ranks.device)
                wishes = agreement.exchange(self._wishes(last_save))
                leaving = wishes.stop or done == self.schedule.steps
                if wishes.save and self.ranks.is_first:
                    progress.say(f"SIGUSR1: saves after step {done} and goes on")
                saved = False
                if leaving or wishes.save or wishes.overdue or self.cadence.due(done):
                    self._tell(unread, 0, progress, watch)
                    with self.ranks.activity.during(SAVING):
                        if leaving:  # before it begins: how often one is due concerns no further step
                            self.checkpoints.finish(progress.say)
                        self.checkpoints.begin(self.state, done, progress.say)
                        saved = leaving and self.checkpoints.finish(progress.say)
                    agreement.saved()
                    last_save = time.monotonic()
                    since = Moment(self.ranks.device)
                else:
                    self.checkpoints.poll(progress.say)
                collect(done)
                if leaving and done < self.schedule.steps:
                    return Outcome("interrupted", done, saved)
        return Outcome("finished", self.schedule.steps, True)

    def _wishes(self, last_save: float) -> Wishes:
        return Wishes(
            stop=self.stop.name is not None,
            save=self.stop.take_save(),
            overdue=self.ranks.is_first and self.cadence.overdue(last_save),
        )

    def _update(self, batch: Batch, lr: float, since: Moment) -> Launched:
        """One optimiser step, given to the device and not waited for; raises `ZeroVLError` where memory runs out."""
        first = Wait(since, Moment(self.ranks.device), self.ranks.activity.data_seconds)
        arrivals = Arrivals(batch.micro_batches, self.ranks)
        optimiser, scaler, model = self.state.optimiser, self.precision.scaler, self.state.model
        set_lr(optimiser, lr)
        optimiser.zero_grad(set_to_none=True)
        found: dict[str, Tensor] = {}
        with memory_errors_as(partial(out_of_memory, batch)):
            found["loss"] = self.step(arrivals, self.mixup.draw(batch.step), batch.step)
        with memory_errors_as(partial(out_of_memory_in_optimiser, batch)):
            if self.clip_norm:
                scaler.unscale_(optimiser)
                found["gradient_norm"] = clip_gradients(model, self.clip_norm, self.ranks)
            if scaler.is_enabled():
                found["loss_scale"] = scaler.scale(torch.ones((), device=self.ranks.device))  # as it is before `update`
            scaler.step(optimiser)
            scaler.update()
        model.clamp_temperature()
        self.state.average.update()
        found["temperature"] = model.temperature
        if model.architecture.logit_bias is not None:
            found["logit_bias"] = model.logit_bias
        numbers = torch.stack([number.detach().double() for number in found.values()])
        ended, waits = Moment(self.ranks.device), [first, *arrivals.waits]
        return Launched(Origin.of(batch), lr, since, ended, waits, tuple(found), read_later(numbers))

    def _tell(
        self,
        unread: deque[Launched],
        keep: int,
        progress: Progress,
        watch: LossWatch,
        scores: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """Show and log all unread steps but the last `keep` and those that were skipped; raises as `LossWatch` does."""
        while len(unread) > keep:
            launched = unread.popleft()
            found = launched.found()
            seconds = launched.begun.seconds_until(launched.ended)
            waited = launched.waited()
            rate = progress.step(found["loss"], launched.lr, seconds, waited)
            if not watch.is_finite(launched.origin, found["loss"], progress.say):
                continue
            row = launched.row(found, rate, waited) | self._save_cost() | scores()
            if self.log:
                self.log.write(row)

    def _score(self) -> dict[str, float]:
        """Scores of the validation sample; a collective."""
        if self.evaluation is None:
            return {}
        self.state.model.eval()
        with self.ranks.activity.during("scoring validation pairs"), self.state.average.applied():
            scores = self.evaluation.score()
        self.state.model.train()
        return scores

    def _save_cost(self) -> dict[str, float]:
        """Seconds that checkpoints held up training since the last row."""
        seconds = self.checkpoints.take_blocked()
        return {"save_seconds": round(seconds, 4)} if seconds else {}
