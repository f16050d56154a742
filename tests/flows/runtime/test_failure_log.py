"""What the log of a run says that fails: what went wrong, once, with frames only where the message is not enough."""

from __future__ import annotations

import logging
import sys

from prefect.exceptions import CancelledRun, FailedRun

from flows.runtime.failure_log import LOGGERS, FailureLog, install
from flows.runtime.process import CommandError
from zerovl.errors import ZeroVLError


def logged(*errors: Exception) -> list[tuple[str, bool]]:
    """Text, and whether a traceback follows, of what comes through where each error is logged as Prefect does."""
    log, kept = FailureLog(), []
    for error in errors:
        try:
            raise error
        except Exception:
            record = logging.LogRecord(
                LOGGERS[0], logging.ERROR, __file__, 1, "Encountered exception: %r", (error,), sys.exc_info()
            )
        if log.filter(record):
            kept.append((record.getMessage(), bool(record.exc_info)))
    return kept


def test_an_error_for_people_is_its_message_once() -> None:
    ended = CommandError("`dvc repro` ended with status 255:\nERROR: no such file")
    assert logged(ended, ended, ended) == [("`dvc repro` ended with status 255:\nERROR: no such file", False)]
    assert logged(ZeroVLError("data/raw: 100% of it is broken")) == [("data/raw: 100% of it is broken", False)]


def test_a_fault_of_the_code_keeps_its_frames_once() -> None:
    fault = KeyError("rsum")
    assert logged(fault, fault) == [("Encountered exception: KeyError('rsum')", True)]
    assert len(logged(fault, KeyError("rsum"))) == 2  # another one, with the same words


def test_a_state_that_a_flow_returned_is_not_an_error_too() -> None:
    assert logged(FailedRun("params.yaml: 1 error"), CancelledRun("cancelled")) == []


def test_other_lines_pass() -> None:
    for exc_info in (None, (None, None, None)):
        assert FailureLog().filter(logging.LogRecord("x", logging.INFO, __file__, 1, "train: step 3", (), exc_info))


def test_one_filter_looks_through_flow_and_tasks() -> None:
    """So that what a task has logged is known when the flow logs it."""
    before = {name: list(logging.getLogger(name).filters) for name in LOGGERS}
    try:
        install()
        install()
        added = [[each for each in logging.getLogger(name).filters if isinstance(each, FailureLog)] for name in LOGGERS]
        assert [len(each) for each in added] == [1, 1]
        assert added[0][0] is added[1][0]
    finally:
        for name in LOGGERS:
            logging.getLogger(name).filters = before[name]
