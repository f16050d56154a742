"""What the log of a run says at its end: of a cancelled one what was saved, of a crashed one that it crashed."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from flows.runtime.cancel_log import CancelLog

SAVED = "zerovl: interrupted by SIGINT after step 12: saved in runs/ab/checkpoints/12"
END = (
    ("prefect.task_runs", logging.INFO, SAVED),
    ("prefect.task_runs", logging.ERROR, "Crash detected! Execution was aborted by a termination signal."),
    ("prefect.task_runs", logging.ERROR, "Finished in state Crashed('Execution was aborted by a termination signal.')"),
)
BY_WORKER = ("prefect.flow_runs", logging.INFO, "Flow run was cancelled.")
BY_ITSELF = ("prefect.flow_runs", logging.ERROR, "Crash detected! Execution was aborted by a termination signal.")


def logged(lines: tuple[tuple[str, int, str], ...], is_cancelled: Callable[[], bool]) -> list[tuple[str, str]]:
    """Level and text of each line that comes through."""
    log, kept = CancelLog(is_cancelled), []
    for name, level, text in lines:
        record = logging.LogRecord(name, level, __file__, 1, "%s", (text,), None)
        if log.filter(record):
            kept.append((record.levelname, record.getMessage()))
    return kept


@pytest.mark.parametrize("last", [BY_WORKER, BY_ITSELF])
def test_a_cancelled_run_ends_with_its_checkpoint(last: tuple[str, int, str]) -> None:
    finished = ("prefect.flow_runs", logging.INFO, "Finished in state Running()")
    assert logged((*END, last, finished), lambda: True) == [
        ("INFO", SAVED),
        ("INFO", f"cancelled; {SAVED}; run it again with the same parameters to go on"),
    ]


def test_a_run_that_was_cancelled_before_it_trained() -> None:
    assert logged((*END[1:], BY_WORKER), lambda: True) == [
        ("INFO", "cancelled; run it again with the same parameters to go on")
    ]


def test_a_crash_stays_one() -> None:
    assert [text for _, text in logged((*END, BY_ITSELF), lambda: False)] == [text for *_, text in (*END, BY_ITSELF)]


def test_the_server_is_asked_at_a_crash_alone() -> None:
    def never() -> bool:
        raise AssertionError("asked")

    line = ("prefect.task_runs", logging.INFO, "train: step 3")
    assert logged((line,), never) == [("INFO", "train: step 3")]
