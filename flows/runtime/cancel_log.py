"""The log of a run that someone cancels: it ends with what was saved, and not with Prefect's "Crash detected!".

Prefect's tasks take every SIGTERM for a crash, also the one that a cancellation sends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

_FLOWS, _TASKS = "prefect.flow_runs", "prefect.task_runs"  # Prefect's loggers of runs
_CRASHES = ("Crash detected!", "Finished in state Crashed", "Finished in state Running")
_OVER = ("Crash detected!", "Flow run was cancelled.")
_SAVED = "saved in"  # of the line in which training names its checkpoint


class CancelLog(logging.Filter):
    """Puts what Prefect says at the end of a cancelled run in words of its own; other runs are left as they are."""

    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        super().__init__()
        self._is_cancelled = is_cancelled
        self._saved = ""
        self._said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be logged."""
        text = record.getMessage()
        if _SAVED in text:
            self._saved = f"{text.strip()}; "
        of_flow = record.name == _FLOWS
        if not text.startswith(_CRASHES + _OVER) or not self._is_cancelled():
            return True
        if not of_flow or self._said or not text.startswith(_OVER):
            return False
        self._said = True
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        record.msg = f"cancelled; {self._saved}run it again with the same parameters to go on"
        record.args = ()
        return True


def install(run: UUID) -> None:
    """Look through the log of this process's run from now on."""
    added = CancelLog(lambda: _is_cancelled(run))
    for name in (_FLOWS, _TASKS):
        logging.getLogger(name).addFilter(added)


def _is_cancelled(run: UUID) -> bool:
    """Return whether the server says that someone cancels the run; False where it does not answer."""
    alone = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})  # the end of a run is not held up for a word
    with suppress(httpx.HTTPError, OSError), alone, get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        return bool(state and (state.is_cancelling() or state.is_cancelled()))
    return False
