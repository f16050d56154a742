"""The log of a run that fails: it says what went wrong once, and not behind three tracebacks of Prefect.

Prefect logs the exception of a task in the task, in the flow and in its engine, each time with all frames. Of an error
whose message is written for people the frames say nothing; of any other those of the first time do.
"""

from __future__ import annotations

import logging

from prefect.exceptions import CancelledRun, FailedRun

from flows.runtime.errors import FlowError
from zerovl.errors import ZeroVLError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")  # Prefect's loggers of runs


class FailureLog(logging.Filter):
    """Lets through each exception of a run once, an expected one as its message."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[BaseException] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be logged."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is None:
            return True
        # A state that a flow returned has been logged; the error is Prefect's own, made after it.
        if isinstance(error, FailedRun | CancelledRun) or any(error is told for told in self._told):
            return False
        self._told.append(error)
        if isinstance(error, FlowError | ZeroVLError):
            record.msg, record.args = str(error), ()
            record.exc_info = record.exc_text = None
        return True


def install() -> None:
    """Look through the log of this process's run from now on."""
    if not any(isinstance(each, FailureLog) for each in logging.getLogger(LOGGERS[0]).filters):
        added = FailureLog()
        for name in LOGGERS:
            logging.getLogger(name).addFilter(added)
