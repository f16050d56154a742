"""`machine.checkpoint_copy`: what a run does with copies of its checkpoints, at its start, on its way and at its end.

It must keep a run from no step: a server that is away costs copies, and is told once.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from zerovl import s3
from zerovl.engine.checkpoints import saved_steps
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.text_format import size
from zerovl.training.copied_checkpoints import CopiedCheckpoints, Copy, DamagedCopyError, snapshot
from zerovl.training.run_spec import Run
from zerovl.training.uploads import Kept, Uploads

QUIET_SECONDS = 120.0  # without a byte that is read or arrives, after which the end of a run waits no longer
_AT_HAND = s3.Patience(attempts=3, connect_seconds=5, answer_seconds=15)  # where the node has a checkpoint too
_FETCHING, _COPYING = "fetching a checkpoint", "copying the last checkpoint"


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
            if self._ranks.is_first:
                self._look_for_newer()
            self._ranks.any(False)  # the others wait for rank 0

    def offer(self, step: int) -> None:
        """Copy the checkpoint of `step` as soon as nothing else is on its way."""
        self._uploads.offer(step)

    def finish(self) -> None:
        """As `CheckpointCopy`; gives up where nothing arrives, for the checkpoint is on this node's disk too."""
        with self._ranks.activity.during(_COPYING):
            if self._ranks.is_first:
                self._wait_for_newest()
            self._ranks.any(False)  # the others wait for rank 0, or their launcher would end it

    def counts(self) -> dict[str, int]:
        """Return how many were copied, skipped and failed since this process started."""
        counts = self._uploads.counts
        return {
            "copied_checkpoints": counts.copied,
            "skipped_copies": counts.skipped,
            "failed_copies": counts.failed,
        }

    def _look_for_newer(self) -> None:
        own = max(saved_steps(self._checkpoints), default=0)
        place = _place(self._run, _AT_HAND) if own else self._place
        try:
            copies = place.newest_first()
            fetched = self._fetch_first_whole(place, [copy for copy in copies if copy.step > own], own)
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

    def _wait_for_newest(self) -> None:
        step = max(saved_steps(self._checkpoints), default=0)
        if not step:
            return
        logger().info(f"waits until the checkpoint of step {step} is in {self._place.uri}")
        tick = partial(self._ranks.activity.mark, _COPYING)
        if self._uploads.finish(step, QUIET_SECONDS, tick):
            logger().info(f"the checkpoint of step {step} is in {self._place.uri}")
        else:
            why = self._uploads.problem or f"nothing arrived for {QUIET_SECONDS:g} s"
            logger().warning(f"the checkpoint of step {step} is in {self._checkpoints} alone: {why}")

    def _fetch_first_whole(self, place: CopiedCheckpoints, copies: list[Copy], own: int) -> int:
        """Fetch the first of `copies` that is whole, newest first, and return its step, 0 where there is none."""
        arrived = 0

        def told(count: int) -> None:
            nonlocal arrived
            arrived += count
            self._ranks.activity.mark(_FETCHING)

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


def checkpoint_copy(run: Run) -> CheckpointCopy:
    """Return what `machine.checkpoint_copy` asks for."""
    return S3Copy(run) if run.params.machine.checkpoint_copy else NoCopy()


def _place(run: Run, patience: s3.Patience | None = None) -> CopiedCheckpoints:
    return CopiedCheckpoints(run.params.machine.checkpoint_copy, run.spec.name, patience)
