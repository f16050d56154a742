"""The end of a run that someone cancels: its state is Cancelled, and its log ends with what was saved.

Prefect takes a SIGTERM for a crash unless a worker has announced it to the run's process. A run from a terminal has no
worker, that of another may be gone, or get no answer within the second that it waits. Prefect then says "Crash
detected!", writes the state Crashed, and dies by the signal before it has sent the last seconds of the log. Where there
is a worker it writes Cancelled once the process is gone, and nobody else may before: it would end a Retry of the run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prefect import State, runtime
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings
from prefect.states import Cancelled

from flows.runtime.told_to_end import WORKER, by_itself, cancelled, forget, note

GO_ON = "run it again with the same parameters to go on"
_FLOWS, _TASKS = "prefect.flow_runs", "prefect.task_runs"  # Prefect's loggers of runs
_ENDS = ("Crash detected!", "Finished in state Crashed", "Finished in state Running", "Finished in state Cancelled")
_OVER = ("Crash detected!", "Flow run was cancelled.")
_SAVED = "saved in"  # of the line in which training names its checkpoint
_ANSWER_SECONDS = 4.0  # a worker waits for 30 s for the end, in which the server is asked up to three times
_RETRIES = 2  # where the state of a run hangs on the answer, and nobody waits


class CancelLog(logging.Filter):
    """Puts what Prefect says at the end of a cancelled run in words of its own; other runs are left as they are."""

    def __init__(self, ask: Callable[[int], bool], again: str = GO_ON) -> None:
        super().__init__()
        self._ask, self._again = ask, again
        self._saved = ""
        self._said = False

    def is_cancelled(self, retries: int = 0) -> bool:
        """Return whether someone cancels the run; the server is asked until it has said so."""
        if not cancelled.is_set() and self._ask(retries):
            cancelled.set()
        return cancelled.is_set()

    def last_words(self) -> str:
        """Return what was saved and how to go on; from then on nothing of Prefect's is let through."""
        self._said = True
        return f"cancelled; {self._saved}{self._again}"

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be logged."""
        text = record.getMessage()
        if _SAVED in text:
            self._saved = f"{text.strip()}; "
        if not text.startswith(_ENDS + _OVER):
            return True
        if self._said:
            return False
        if not self.is_cancelled():
            return True
        if record.name != _FLOWS or not text.startswith(_OVER):
            return False
        # A signal that reached Prefect's engine outside of the flow.
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.msg, record.args = self.last_words(), ()
        return True


class Cancellable(AbstractContextManager["Cancellable", bool]):
    """Around what a flow does: one that someone cancels comes to the end of the block, and then returns `state`.

    Where a worker will write the state, or nobody cancels the run, what ended the block goes on to Prefect; the log is
    sent before.
    """

    state: State[Any]

    def __init__(self, again: str = GO_ON) -> None:
        """Take what a user can do after a cancellation."""
        self._again = again

    def __enter__(self) -> Self:
        forget()
        self._log = CancelLog(partial(_is_cancelled, runtime.flow_run.id), self._again)
        for name in (_FLOWS, _TASKS):
            log = logging.getLogger(name)
            log.filters = [each for each in log.filters if not isinstance(each, CancelLog)]  # of a run before
            log.addFilter(self._log)
        _outlive_whoever_reads()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is None or issubclass(kind, Exception):
            return False
        note(kind)
        if self._log.is_cancelled(_RETRIES if _alone() else 0):
            words = self._log.last_words()
            get_run_logger().info(words)
            if _alone():
                self.state = Cancelled(message=words)
                return True
        _send_log()
        return False


def _alone() -> bool:
    return by_itself.is_set() or WORKER not in os.environ


def _is_cancelled(run: str, retries: int) -> bool:
    """Return whether the server says that someone cancels the run; False where it does not answer."""
    if not get_current_settings().api.url:
        return False  # a server of the run's own, which nobody knows, and which Ctrl-C has ended with it
    # A client of its own: the flow's waits for a minute and a half.
    few, seconds = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: retries}), {"timeout": _ANSWER_SECONDS}
    with suppress(httpx.HTTPError, OSError), few, get_client(httpx_settings=seconds, sync_client=True) as client:
        state = client.read_flow_run(UUID(run)).state
        return bool(state and (state.is_cancelling() or state.is_cancelled()))
    return False


def _outlive_whoever_reads() -> None:
    """Let lines be lost that the console cannot write: of a worker that is gone, rich would end the process by one."""
    for handler in logging.getLogger().handlers:
        if console := getattr(handler, "console", None):
            console.on_broken_pipe = partial(setattr, console, "quiet", True)


def _send_log() -> None:
    """Wait until the server has the log, for the five seconds that Prefect's handler waits."""
    for handler in logging.getLogger(_FLOWS).handlers:
        handler.flush()
