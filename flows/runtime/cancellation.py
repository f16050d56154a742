"""The end of a run that someone cancels: its state is Cancelled, and its log ends with what was saved.

Prefect takes a SIGTERM for a crash unless a worker has announced it to the run's process. A run from a terminal has no
worker, that of another may be gone, or get no answer within the second that it waits. Prefect then says "Crash
detected!", writes the state Crashed, and dies by the signal before it has sent the last seconds of the log. Where there
is a worker it writes Cancelled once the process is gone, and nobody else may before: it would end a Retry of the run.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import httpx
from prefect import State, runtime
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled

from flows.runtime.told_to_end import WORKER, by_itself, hears_of_it

P = ParamSpec("P")
R = TypeVar("R")
_FLOWS, _TASKS = "prefect.flow_runs", "prefect.task_runs"  # Prefect's loggers of runs
_ENDS = ("Crash detected!", "Finished in state Crashed", "Finished in state Running", "Finished in state Cancelled")
_OVER = ("Crash detected!", "Flow run was cancelled.")
_RETRIES = 2  # some six seconds, where the state of a run hangs on the answer
_SAVED = "saved in"  # of the line in which training names its checkpoint


class CancelLog(logging.Filter):
    """Puts what Prefect says at the end of a cancelled run in words of its own; other runs are left as they are."""

    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        super().__init__()
        self._is_cancelled = is_cancelled
        self._saved = ""
        self._said = False

    def last_words(self) -> str:
        """Return what was saved and how to go on; from then on nothing of Prefect's is let through."""
        self._said = True
        return f"cancelled; {self._saved}run it again with the same parameters to go on"

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be logged."""
        text = record.getMessage()
        if _SAVED in text:
            self._saved = f"{text.strip()}; "
        if not text.startswith(_ENDS + _OVER):
            return True
        if self._said:
            return False
        if not self._is_cancelled():
            return True
        if record.name != _FLOWS or not text.startswith(_OVER):
            return False
        # A signal that reached Prefect's engine outside of the flow.
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.msg, record.args = self.last_words(), ()
        return True


def cancellable(flow: Callable[P, R]) -> Callable[P, R | State[Any]]:
    """Let the log of a flow that is told to end be whole, and one that someone cancels end as Cancelled.

    It returns that state itself where no worker will write it; else the signal goes on to Prefect.
    """

    @functools.wraps(flow)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        this = runtime.flow_run.id
        log = CancelLog(lambda: _is_cancelled(this))
        for name in (_FLOWS, _TASKS):
            logging.getLogger(name).addFilter(log)
        try:
            with hears_of_it():
                return flow(*args, **kwargs)
        except TerminationSignal:
            if _is_cancelled(this, retries=_RETRIES):
                words = log.last_words()
                get_run_logger().info(words)
                if by_itself.is_set() or WORKER not in os.environ:
                    return Cancelled(message=words)
            _send_log()
            raise

    # Prefect looks for the types of parameters where the function that it is given was written, which is here.
    run.__signature__ = inspect.signature(flow, eval_str=True)  # type: ignore[attr-defined]
    return run


def _is_cancelled(run: str, retries: int = 0) -> bool:
    """Return whether the server says that someone cancels the run; False where it does not answer."""
    few = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: retries})  # the end of a run is not held up for minutes
    with suppress(httpx.HTTPError, OSError), few, get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(run)).state
        return bool(state and (state.is_cancelling() or state.is_cancelled()))
    return False


def _send_log() -> None:
    """Wait until the server has the log, for the five seconds that Prefect's handler waits."""
    for handler in logging.getLogger(_FLOWS).handlers:
        handler.flush()
