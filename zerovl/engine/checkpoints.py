"""Checkpoints of a run: whole or absent, written by all ranks while training goes on.

`runs/<fingerprint>/checkpoints/step-00000100/` holds one safetensors file a rank (see `checkpoint_files`) and
`state.json` (step, number of the checkpoint, loss scale). Training stops for the copy to host memory alone:
a thread of each rank then writes and syncs its file in `.step-00000100.part/`, and when all ranks have
written, a thread of rank 0 adds `state.json`, syncs the folder and renames it. So a name without `.part`
is whole. The end of a write is found at a later step, or awaited when training stops.

The threads call no collectives: the ranks tell each other between steps, in the main thread, over whatever
backend trains. `torch.distributed.checkpoint.async_save` would run collectives in a second thread, which
needs a second (gloo) group beside NCCL, can cross those of the main thread, and leaves a rank hanging in
that thread when another one dies. The threads are daemons: a process may leave at any time, and what it
was writing is then a `.part` that the next start clears away.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zerovl.distributed.ranks import Ranks
from zerovl.engine.background_task import BackgroundTask
from zerovl.engine.checkpoint_files import Piece, Staging, StoredTensors, shard_name, write_shard
from zerovl.engine.checkpoint_folder import (
    CheckpointFolder,
    SavedOn,
    checkpoint_path,
    read_values,
    saved_on,
    saved_steps,
)
from zerovl.engine.state import TrainingState
from zerovl.errors import ZeroVLError
from zerovl.files import disk_is_full, write_json

Report = Callable[[str], None]
Answer = Callable[[], tuple[bool, ...]]  # of all ranks: whether one still works, whether one failed
Beside = Callable[[], tuple[str, Any] | None]  # a name, other for each rank, and what is written there as JSON


@dataclass
class _Save:
    """A checkpoint under way: first all ranks write, then rank 0 completes it."""

    step: int
    values: dict[str, Any]  # of state.json
    task: BackgroundTask
    completing: bool = False


class Checkpoints:
    """The last `keep` checkpoints of one run and every `keep_every`-th (0: none); all ranks call the same methods."""

    def __init__(
        self,
        folder: Path,
        keep: int,
        keep_every: int,
        ranks: Ranks,
        hear_whole: Callable[[int], None] = lambda _step: None,
        gathers: str = "float32",
    ) -> None:
        """`hear_whole` hears of each checkpoint's step when it is whole, in a thread of rank 0.

        `gathers` is kept with each: how the run gathers sharded weights (`gathered_as`).
        """
        self.folder = folder
        self._kept = CheckpointFolder(folder, keep, keep_every)
        self._ranks = ranks
        self._hear_whole = hear_whole
        self._gathers = gathers
        self._staging = Staging(ranks)
        self._beside: Beside = lambda: None
        self._save: _Save | None = None
        self._asked: deque[Answer] = deque()  # after steps, of the save's present part
        self._number = 0  # of the newest whole one, counted over all restarts of the run
        self._failed = False  # the last save that ended
        self._slow_said = False
        self._blocked = 0.0

    def steps(self) -> list[int]:
        """Return the steps of the whole checkpoints, ascending."""
        return saved_steps(self.folder)

    def keep_beside(self, beside: Beside) -> None:
        """Let each rank put a file of its own into every checkpoint; asked for it when one begins."""
        self._beside = beside

    def path(self, step: int) -> Path:
        """Return where the checkpoint of `step` is, or would be."""
        return checkpoint_path(self.folder, step)

    def saved_on(self, step: int) -> SavedOn | None:
        """Return what the checkpoint of `step` was written on; None where there is none."""
        return saved_on(self.path(step))

    def begin(self, state: TrainingState, step: int, report: Report) -> None:
        """Copy the state of `step` and start to write it; a collective. Waits for a save that still runs."""
        with self._timed():
            self._settle(False, report)
            if self._save:
                self._tell_slow(step, self._save.step, report)
                self._settle(True, report)
            values = {
                "step": step,
                "number": self._number + 1,
                "world_size": self._ranks.world_size,
                "threads": torch.get_num_threads(),
                "gathers": self._gathers,
                "scaler": state.scaler.state_dict(),
            }
            self._staging.plan(state.tensors())
            try:
                pieces = self._staging.copy()
            except (RuntimeError, MemoryError) as error:  # no host memory for the copy
                self._save = _Save(step, values, BackgroundTask(None, error))
                return
            beside = self._beside()
            self._save = _Save(step, values, BackgroundTask(lambda: self._write(step, pieces, beside)))

    def poll(self, report: Report) -> None:
        """Go on with a save whose present part has ended on all ranks; a collective while one runs.

        Called after each step. Like the host itself, what it hears of the ranks may be `Ranks.lag` steps behind.
        """
        if self._save:
            with self._timed():
                self._asked.append(self._ask(self._save))
                if len(self._asked) > self._ranks.lag:
                    self._go_on(self._save, self._asked.popleft()(), report)

    def finish(self, report: Report) -> bool:
        """Wait for a running save; whether the last one is whole. A collective."""
        with self._timed():
            self._settle(True, report)
        return not self._failed

    def take_blocked(self) -> float:
        """Seconds that training stood still for checkpoints since the last call."""
        seconds, self._blocked = self._blocked, 0.0
        return seconds

    def restore_newest(self, state: TrainingState, report: Report) -> int:
        """Load the newest checkpoint that all ranks can read; returns its step, 0 where there is none."""
        below = None
        while step := self._newest(below):
            if self._restore(state, step, report):
                return step
            below = step
        return 0

    def restore_other(self, state: TrainingState, path: Path, step: int) -> None:
        """Load a checkpoint of another run, trained with other settings; moments that fit nothing here are left out.

        All ranks call it together. Raises `ZeroVLError` where one of them cannot read it, or it is of another model.
        """
        refused: ZeroVLError | None = None
        try:
            values = read_values(path, step)
            stored = StoredTensors(path)
            tensors = state.empty_like_stored(stored.tensors, str(path), of_other_settings=True)
            stored.read_into(tensors)
        except ZeroVLError as error:
            refused = error
        (any_refused,) = self._ranks.any(refused is not None)
        if any_refused:
            raise refused or ZeroVLError(f"{path}: another rank could not read it, see there")
        state.load(tensors, values["scaler"])

    def clear_leftovers(self) -> None:
        """Remove what a killed run was writing; on rank 0, before the first step."""
        self._kept.clear_leftovers()

    def _settle(self, wait: bool, report: Report) -> None:
        """Take a running save as far as it has come, or to its end."""
        while save := self._save:
            if wait:
                save.task.join()
            if not self._go_on(save, self._ask(save)(), report):
                return

    def _ask(self, save: _Save) -> Answer:
        return self._ranks.start_any(save.task.busy, save.task.error is not None)

    def _go_on(self, save: _Save, answer: tuple[bool, ...], report: Report) -> bool:
        """Begin the next part of a save, or end it, where the ranks' answer allows; returns whether it did."""
        busy, failed = answer
        if busy:
            return False  # also after a failure: no rank may still write when the folder is removed
        self._asked.clear()  # of the part that ended here
        if failed:
            self._give_up(save, report)
        elif not save.completing:
            self._save = _Save(save.step, save.values, BackgroundTask(self._completion(save)), completing=True)
        else:
            self._number, self._failed, self._save = save.values["number"], False, None
        return True

    def _completion(self, save: _Save) -> Callable[[], None] | None:
        return (lambda: self._complete(save.step, save.values)) if self._ranks.is_first else None

    def _write(self, step: int, pieces: list[Piece], beside: tuple[str, Any] | None) -> None:
        write_shard(self._kept.aside(step) / shard_name(self._ranks.rank, self._ranks.world_size), pieces)
        if beside:
            write_json(self._kept.aside(step) / beside[0], beside[1])

    def _complete(self, step: int, values: dict[str, Any]) -> None:
        """On rank 0: name the checkpoint, then drop old ones."""
        world_size = self._ranks.world_size
        self._kept.complete(step, [shard_name(rank, world_size) for rank in range(world_size)], values)
        self._hear_whole(step)
        self._kept.drop_old(step)

    def _give_up(self, save: _Save, report: Report) -> None:
        """All ranks have ended: tell why, remove what was written, keep the last good one."""
        error = save.task.error
        (first_failed,) = self._ranks.any(self._ranks.is_first and error is not None)
        if error is not None and (self._ranks.is_first or not first_failed):
            good = self.steps()
            last = f"step {good[-1]} is the last good one" if good else "there is none yet"
            report(
                f"{self._who()}checkpoint of step {save.step} could not be written to {self.folder}: {error}; "
                f"{last}; {_advice(error)}"
            )
        if self._ranks.is_first:
            self._kept.give_up(save.step)
        self._failed, self._save = True, None

    def _tell_slow(self, step: int, running: int, report: Report) -> None:
        if self._ranks.is_first and not self._slow_said:
            report(
                f"checkpoint of step {step} waits until that of step {running} is written; raise "
                "machine.checkpoint_steps if this holds up training (said once)"
            )
        self._slow_said = True

    def _newest(self, below: int | None) -> int:
        """The newest step in rank 0's folder, 0 where there is none; the same on all ranks."""
        steps = [step for step in self.steps() if below is None or step < below]
        mine = torch.tensor([max(steps, default=0)], device=self._ranks.device)
        return int(self._ranks.collectives.gather(mine)[0])

    def _restore(self, state: TrainingState, step: int, report: Report) -> bool:
        """Load one checkpoint on all ranks or on none."""
        path = self.path(step)
        refused: ZeroVLError | None = None
        try:
            values = read_values(path, step)
            stored = StoredTensors(path)
            tensors = state.empty_like_stored(stored.tensors, str(path))
            stored.read_into(tensors)
        except ZeroVLError as error:
            refused = error
        first_refused, any_refused = self._ranks.any(self._ranks.is_first and refused is not None, refused is not None)
        if refused is not None and (self._ranks.is_first or not first_refused):
            report(f"{self._who()}checkpoint of step {step} is passed over: {refused}")
        if not any_refused:
            state.load(tensors, values["scaler"])
            self._number = values["number"]
        return not any_refused

    def _who(self) -> str:
        return "" if self._ranks.is_first else f"rank {self._ranks.rank}: "

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._blocked += time.perf_counter() - start


def _advice(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "the copy in host memory may not fit"
    return "free some space" if disk_is_full(error) else "check that disk"
