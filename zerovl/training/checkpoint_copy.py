"""`machine.checkpoint_copy`: what a run does with copies of its checkpoints, at its start, on its way and at its end.

It must keep a run from no step: a server that is away costs copies, and is told once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from typing import Protocol

from zerovl import s3
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoint_folder import saved_steps
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.text_format import size
from zerovl.training.copied_checkpoints import CopiedCheckpoints, Copy, DamagedCopyError, snapshot
from zerovl.training.run_spec import Run
from zerovl.training.uploads import Kept, Uploads

QUIET_SECONDS = 120.0  # without a byte that is read or arrives, after which the end of a run waits no longer
_AT_HAND = s3.Patience(attempts=3, connect_seconds=5, answer_seconds=15)  # where the node has a checkpoint too
_FETCHING, _COPYING = "fetching a checkpoint", "copying the last checkpoint"
_TURN_SECONDS = 0.5  # between two collectives of those that wait
# By phase: what a signal to stop is answered while copies are fetched or awaited.
ANSWERS = {
    _FETCHING: "fetches the newest checkpoint, finishes the step after it and saves",
    _COPYING: "leaves when the last checkpoint is copied",
}


class CheckpointCopy(Protocol):
    """Copies of a run's checkpoints elsewhere; all ranks call the same methods, but `offer`."""

    def fetch_newer(self) -> None:
        """Fetch the newest copy where it is newer than what is in the run's folder; before anything is read there."""

    def offer(self, step: int) -> None:
        """Copy the checkpoint of `step`, which is whole, while training goes on; on rank 0, from any thread."""

    def finish(self) -> None:
        """Wait until the newest checkpoint is copied, and say whether it is."""

    def counts(self) -> dict[str, int]:
        """Return what the report says of them."""


class NoCopy:
    """Where `machine.checkpoint_copy` is empty: checkpoints stay where they are."""

    def fetch_newer(self) -> None:
        """Do nothing."""

    def offer(self, step: int) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def counts(self) -> dict[str, int]:
        """Return nothing."""
        return {}


class S3Copy:
    """Copies below s3://bucket/prefix/RUN: rank 0 sends and fetches, the others wait where it fetches or ends."""

    def __init__(self, run: Run) -> None:
        self._run, self._ranks = run, run.ranks
        self._checkpoints = run.folder / "checkpoints"
        self._place = _place(run)
        self._uploads = self._make_uploads(0)

    def fetch_newer(self) -> None:
        """As `CheckpointCopy`; raises `ZeroVLError` where a server is away and nothing is here to go on from."""
        with self._ranks.activity.during(_FETCHING):
            done_by_first(self._ranks, self._look_for_newer)

    def offer(self, step: int) -> None:
        """Copy the checkpoint of `step` as soon as nothing else is on its way."""
        self._uploads.offer(step)

    def finish(self) -> None:
        """As `CheckpointCopy`; gives up where nothing arrives, for the checkpoint is on this node's disk too."""
        with self._ranks.activity.during(_COPYING):  # the others wait too, or their launcher would end rank 0
            done_by_first(self._ranks, self._wait_for_newest)

    def counts(self) -> dict[str, int]:
        """Return how many were copied, skipped and failed since this process started."""
        counts = self._uploads.counts
        return {
            "copied_checkpoints": counts.copied,
            "skipped_copies": counts.skipped,
            "failed_copies": counts.failed,
        }

    def _look_for_newer(self, moved: Callable[[], None]) -> None:
        own = max(saved_steps(self._checkpoints), default=0)
        place = _place(self._run, _AT_HAND) if own else self._place
        try:
            copies = place.newest_first()
            fetched = self._fetch_first_whole(place, [copy for copy in copies if copy.step > own], own, moved)
        except ZeroVLError as error:
            if not own:
                raise ZeroVLError(
                    f"{error}. {self._checkpoints} has no checkpoint, and whether the copy has one is not known; to "
                    "train without it set machine.checkpoint_copy to ''"
                ) from None
            logger().warning(f"{error}. The run goes on from step {own} in {self._checkpoints}")
            return
        steps = [copy.step for copy in copies]
        if steps and steps[0] < own:
            logger().info(f"{place.uri} has step {steps[0]}, {self._checkpoints} step {own}: that is the newer one")
        self._uploads = self._make_uploads(fetched or (own if own in steps else 0))

    def _wait_for_newest(self, moved: Callable[[], None]) -> None:
        step = max(saved_steps(self._checkpoints), default=0)
        if not step:
            return
        logger().info(f"waits until the checkpoint of step {step} is in {self._place.uri}")
        if self._uploads.finish(step, QUIET_SECONDS, moved):
            logger().info(f"the checkpoint of step {step} is in {self._place.uri}")
        else:
            why = self._uploads.problem or f"nothing arrived for {QUIET_SECONDS:g} s"
            logger().warning(f"the checkpoint of step {step} is in {self._checkpoints} alone: {why}")

    def _fetch_first_whole(
        self, place: CopiedCheckpoints, copies: list[Copy], own: int, moved: Callable[[], None]
    ) -> int:
        """Fetch the first of `copies` that is whole, newest first, and return its step, 0 where there is none."""
        arrived = 0

        def told(count: int) -> None:
            nonlocal arrived
            arrived += count
            moved()

        for copy in copies:
            arrived = 0
            try:
                place.fetch(copy, self._run.folder, told)
            except DamagedCopyError as error:
                logger().warning(f"copy of step {copy.step} is passed over: {error}; the one before it is looked at")
                continue
            here = f"step {own} is the newest" if own else "there is none"
            logger().info(
                f"fetched the checkpoint of step {copy.step} from {place.uri} ({size(arrived)}, every digest right): "
                f"in {self._checkpoints} {here}"
            )
            return copy.step
        return 0

    def _make_uploads(self, copied: int) -> Uploads:
        machine = self._run.params.machine
        kept = Kept(machine.keep_checkpoints, machine.keep_every)
        return Uploads(self._place, kept, partial(snapshot, self._run.folder), copied)


def done_by_first(ranks: Ranks, work: Callable[[Callable[[], None]], None]) -> None:
    """Let rank 0 do `work`, of any length, while the others wait; a collective, which raises there what `work` raises.

    `work` is given what it is to call as it goes on, from any thread. The others wait in many collectives that follow
    each other, because a single one has a limit of half an hour. Where `work` stands still, so do they: the watchdog
    sees it.
    """
    if ranks.world_size == 1:
        work(partial(ranks.activity.mark, ranks.activity.phase))
    elif ranks.is_first:
        _work_beside(ranks, work)
    else:
        while ranks.any(False)[0]:
            pass


def _work_beside(ranks: Ranks, work: Callable[[Callable[[], None]], None]) -> None:
    moved, ended = Event(), Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(moved.set)
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()
            moved.set()

    Thread(target=run, name="work of rank 0", daemon=True).start()
    while True:
        moved.wait()
        moved.clear()
        if ended.is_set():
            break
        ranks.any(True)
        ended.wait(_TURN_SECONDS)
    if errors:
        raise errors[0]
    ranks.any(False)


def checkpoint_copy(run: Run) -> CheckpointCopy:
    """Return what `machine.checkpoint_copy` asks for."""
    return S3Copy(run) if run.params.machine.checkpoint_copy else NoCopy()


def _place(run: Run, patience: s3.Patience | None = None) -> CopiedCheckpoints:
    return CopiedCheckpoints(run.params.machine.checkpoint_copy, run.spec.name, patience)
