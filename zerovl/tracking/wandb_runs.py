"""Runs in Weights & Biases, by its own client; `WANDB_MODE`, `WANDB_PROJECT` and all that it reads count."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from zerovl.tracking.base import Point, Results, State, TrackedRun

_CONNECTING_SECONDS = 20  # its client would wait for 90
_POLL_SECONDS = 0.05


class WandbRuns:
    """A run of W&B, whose id is the run's fingerprint; without network it is kept in `runs/<fingerprint>/wandb`."""

    def __init__(self, project: str) -> None:
        self._project = os.environ.get("WANDB_PROJECT") or project
        self._run: Any = None

    def place(self) -> str:
        """Return the project."""
        return f"project {self._project}"

    def open(self, run: TrackedRun) -> str:
        """Begin the run, or go on with it."""
        import wandb

        _wait_for_a_folder_of_its_own(run)
        self._run = wandb.init(
            project=self._project,
            id=run.name,
            name=run.name,
            dir=str(run.folder),
            resume="allow",
            settings=wandb.Settings(
                console="off", silent=True, save_code=False, disable_git=True, init_timeout=_CONNECTING_SECONDS
            ),
        )
        return run.name

    def parameters(self, values: Mapping[str, str]) -> None:
        """Take them as the run's config."""
        self._run.config.update(dict(values), allow_val_change=True)

    def points(self, points: Sequence[Point]) -> None:
        """Take steps of its curves; the client keeps them on the disk until they are sent."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def results(self, results: Results) -> None:
        """Take scores and notes into the run's summary."""
        self._run.summary.update({**results.scores, **results.notes})

    def close(self, state: State) -> None:
        """End the run, as one that failed unless it finished."""
        self._run.finish(exit_code=0 if state == "finished" else 1)


def _wait_for_a_folder_of_its_own(run: TrackedRun) -> None:
    """Wait while a folder of this run bears the present second: the client would write over what is in it.

    It names the folder of a process `[offline-]run-<second>-<id>`, so two of one run within a second have one name.
    """
    while any((run.folder / "wandb").glob(f"*run-{time.strftime('%Y%m%d_%H%M%S')}-{run.name}")):
        time.sleep(_POLL_SECONDS)
