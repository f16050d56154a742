"""A training that stands still before a step that a file names, so that steps are left for whoever interrupts it.

Up to there its steps are as fast as they can be: a test kills it at any moment, and on a busy machine it has not ended
before. It goes on when the file names a later step, or a signal asks it to stop.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from tests.support.fork_server import Forked, server
from zerovl.engine import trainer
from zerovl.engine.step_errors import Batch
from zerovl.workspace import Workspace

PREPARE = "tests.support.held_steps:hold"
_FILE = Path("holds-before-step")


def hold_before(root: Path, step: int) -> None:
    """Name the step, the first one being 0, for the training in a folder."""
    aside = root / f".{_FILE}-{os.getpid()}"
    aside.write_text(str(step))
    aside.replace(root / _FILE)


def start_held(workspace: Workspace, step: int) -> Forked:
    """`zerovl train`, forked, which stands still before a step."""
    hold_before(workspace.root, step)
    return server().start("zerovl.cli:main", "train", cwd=workspace.root, prepare=PREPARE)


def hold() -> None:
    """Change the trainer of this process and of the ranks that it forks; a `prepare` of the fork server."""
    update = trainer.Trainer._update

    def held(self: trainer.Trainer, batch: Batch, *rest: object) -> trainer.Launched:
        while batch.step >= _held_before() and not self.stop.name:
            time.sleep(0.005)
        if self.stop.name and batch.step >= _held_before():
            hold_before(Path(), batch.step + 1)  # the other ranks do this step with the one that heard the signal
        return update(self, batch, *rest)  # type: ignore[arg-type]

    trainer.Trainer._update = held  # type: ignore[assignment]


def _held_before() -> float:
    try:
        return int(_FILE.read_text())
    except FileNotFoundError:
        return math.inf
