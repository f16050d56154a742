"""What a run tells the server while it works: lines of its log, and its progress."""

from __future__ import annotations

import contextvars
import re
import threading
import time
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import outbox
from flows.runtime.process import Bar
from flows.runtime.told_to_end import LAST_SECONDS, note, told

# What is not for a run's log: what DVC says to someone at a terminal (a run commits and pushes by itself), the stage
# `code`, which every run of DVC begins with, and locks of the DVC that was cancelled with the attempt before.
_NOISE = re.compile(
    r"\s*(To track the changes with git|git add|To enable auto staging|dvc config core\.autostage|Use `dvc push`"
    r"|Running stage 'code'|> zerovl code|WARNING: Process .* in RWLock-file .* Auto removed it from the lock file)"
)
_EVERY = 2.0  # seconds between updates of a progress artifact
_END_SECONDS = 15.0  # how long the last state of a progress artifact may hold up a stage's end


class ProgressReporter:
    """Sends lines to the run's log and bars to one progress artifact; never holds up the command.

    The artifact is written from a thread of its own: where the server is away, only the newest state waits. The last
    state is sent until the server takes it: the stage waits for `_END_SECONDS`, the run's outbox at its end for longer.
    What the server refuses for good ends the thread.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._logger = get_run_logger()
        self._newest: Bar | None = None
        self._ended = threading.Event()
        # The thread writes in the name of this task run.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._write,), daemon=True)
        self._last = Bar(stage, 0.0, "started")

    def line(self, text: str) -> None:
        """Write a line of the command's output to the run's log, if it says something about the run."""
        if not _NOISE.match(text):
            self._logger.info(text)

    def bar(self, bar: Bar) -> None:
        """Keep the newest state of a bar for the thread that sends it."""
        self._newest = bar

    def __enter__(self) -> Self:
        self._since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        note(kind)
        took = f"{time.monotonic() - self._since:.0f} s"
        self._newest = Bar("", 100.0, f"done in {took}") if kind is None else self._stopped(took)
        self._ended.set()
        self._thread.join(timeout=LAST_SECONDS if told.is_set() else _END_SECONDS)
        if self._thread.is_alive():
            outbox.wait_also_for(self._thread)

    def _stopped(self, took: str) -> Bar:
        last = self._newest or self._last
        return Bar(last.title, last.percent, f"stopped after {took}; {last.text}")

    def _write(self) -> None:
        # No retries of the client's own: meanwhile the state would grow old. Set once: Prefect checks all its settings
        # again for each change of one, which takes more CPU time than the request.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            self._write_until_ended()

    def _write_until_ended(self) -> None:
        artifact: UUID | None = None
        while True:
            ended = self._ended.wait(_EVERY if artifact else 0.0)
            bar, self._newest = self._newest or (None if artifact else self._last), None
            if bar:
                self._last = bar
                try:
                    artifact = self._send(artifact, bar)
                except RuntimeError:
                    return  # the run has ended, and Prefect's client with it
                except httpx.HTTPError as error:
                    self._logger.debug("progress of %s not sent: %s", self._stage, error)
                    if not outbox.may_pass(error):
                        return
                    self._newest = self._newest or bar
                    time.sleep(_EVERY / 2)
            if ended and self._newest is None:
                return

    def _send(self, artifact: UUID | None, bar: Bar) -> UUID:
        title = f"{bar.title}: " if bar.title not in ("", self._stage) else ""
        description = f"**{self._stage}** {title}{bar.text}"
        if artifact is None:
            made = create_progress_artifact(bar.percent, key=f"progress-{self._stage}", description=description)
            assert isinstance(made, UUID)
            return made
        update_progress_artifact(artifact, bar.percent, description=description)
        return artifact
