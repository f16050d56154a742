"""A training whose fourth step waits until a test lets it go on; a `prepare` of the fork server."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from zerovl.engine import trainer

WAITS = Path("waits")  # there as long as the step waits; a test takes it away
READING = "TEST_READING_SECONDS"  # in which a second Ctrl-C is no answer to what the first one said
STEPS = 4  # of a process, the last of which waits


def in_the_fourth() -> None:
    """Change the trainer of this process so; each step takes a checkpoint on by a part, however slow the disk is."""
    trainer._READING_SECONDS = float(os.environ[READING])
    update, begun = trainer.Trainer._update, list[int]()

    def waiting(self: trainer.Trainer, *arguments: object) -> trainer.Launched:
        begun.append(1)
        for thread in threading.enumerate():
            if thread.name == "checkpoint":
                thread.join()
        if len(begun) == STEPS:
            WAITS.touch()
            while WAITS.exists():
                time.sleep(0.01)
        return update(self, *arguments)  # type: ignore[arg-type]

    trainer.Trainer._update = waiting  # type: ignore[method-assign]
