"""How a run ends that is told to: a cancelled one with what was saved, a crashed one as a crash."""

from __future__ import annotations

import io
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from prefect import State
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED, temporary_settings

from flows.runtime import cancellation
from flows.runtime.cancellation import Cancellable, CancelLog
from flows.runtime.told_to_end import WORKER, by_itself, told
from tests.support.busy_server import BusyServer
from tests.support.ports import free_port

SAVED = "zerovl: interrupted by SIGINT after step 12: saved in runs/ab/checkpoints/12"
WORDS = f"cancelled; {SAVED}; run it again with the same parameters to go on"
END = (
    ("prefect.task_runs", logging.INFO, SAVED),
    ("prefect.task_runs", logging.ERROR, "Crash detected! Execution was aborted by a termination signal."),
    ("prefect.task_runs", logging.ERROR, "Finished in state Crashed('Execution was aborted by a termination signal.')"),
)
BY_WORKER = ("prefect.flow_runs", logging.INFO, "Flow run was cancelled.")
BY_ITSELF = ("prefect.flow_runs", logging.ERROR, "Crash detected! Execution was aborted by a termination signal.")


def logged(lines: tuple[tuple[str, int, str], ...], ask: Callable[[int], bool]) -> list[tuple[str, str]]:
    """Level and text of each line that comes through."""
    log, kept = CancelLog(ask), []
    for name, level, text in lines:
        record = logging.LogRecord(name, level, __file__, 1, "%s", (text,), None)
        if log.filter(record):
            kept.append((record.levelname, record.getMessage()))
    return kept


@pytest.mark.parametrize("last", [BY_WORKER, BY_ITSELF])
def test_a_cancelled_run_ends_with_its_checkpoint(last: tuple[str, int, str]) -> None:
    finished = ("prefect.flow_runs", logging.INFO, "Finished in state Running()")
    assert logged((*END, last, finished), lambda retries: True) == [
        ("INFO", SAVED),
        ("INFO", WORDS),
    ]


def test_a_run_that_was_cancelled_before_it_trained() -> None:
    assert logged((*END[1:], BY_WORKER), lambda retries: True) == [
        ("INFO", "cancelled; run it again with the same parameters to go on")
    ]


def test_a_crash_stays_one() -> None:
    assert [text for _, text in logged((*END, BY_ITSELF), lambda retries: False)] == [
        text for *_, text in (*END, BY_ITSELF)
    ]


def test_the_server_is_asked_at_a_crash_alone() -> None:
    def never(_retries: int) -> bool:
        raise AssertionError("asked")

    line = ("prefect.task_runs", logging.INFO, "train: step 3")
    assert logged((line,), never) == [("INFO", "train: step 3")]


class Handler(logging.Handler):
    """Prefect's, which sends a log now and then, and at once where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.sent = list[str](), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.waiting.append(record.getMessage())

    def flush(self) -> None:
        self.sent += self.waiting
        self.waiting.clear()


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handler]:
    """What sends the log of a run, which has a logger of its own here."""
    log = logging.getLogger(f"test.{uuid.uuid4()}")
    log.setLevel(logging.INFO)
    log.addHandler(handler := Handler())
    monkeypatch.setattr(cancellation, "_FLOWS", log.name)
    monkeypatch.setattr(cancellation, "_TASKS", f"{log.name}.tasks")
    monkeypatch.setattr(cancellation, "get_run_logger", lambda: log)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(uuid.uuid4()))
    yield handler
    log.removeHandler(handler)


def told_to_end(raised: BaseException) -> State[None] | None:
    """What a flow returns that is told to end while it saves."""

    def flow() -> State[None] | None:
        with Cancellable() as ended:
            if worker_is_gone:
                by_itself.set()
            logging.getLogger(cancellation._FLOWS).info(SAVED)
            raise raised
        return ended.state

    worker_is_gone = by_itself.is_set()
    return flow()


@pytest.mark.parametrize("raised", [TerminationSignal(15), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("worker", ["none", "gone"])
def test_a_flow_that_someone_cancels_and_that_has_no_worker_is_cancelled(
    worker: str, raised: BaseException, sender: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "_is_cancelled", lambda run, retries: True)
    if worker == "gone":
        monkeypatch.setenv(WORKER, str(uuid.uuid4()))
        by_itself.set()
    state = told_to_end(raised)
    assert state is not None
    assert (state.name, state.message) == ("Cancelled", WORDS)
    logging.getLogger(cancellation._FLOWS).info(f"Finished in state {state}")
    assert sender.waiting == [SAVED, WORDS]
    assert told.is_set()


def test_a_later_run_of_the_process_has_a_log_of_its_own(sender: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "_is_cancelled", lambda run, retries: True)
    told_to_end(TerminationSignal(15))
    monkeypatch.setattr(cancellation, "_is_cancelled", lambda run, retries: False)
    with Cancellable():
        assert not told.is_set()
        logging.getLogger(cancellation._FLOWS).error("Crash detected! out of memory")
    assert sender.waiting[-1] == "Crash detected! out of memory"
    assert len(logging.getLogger(cancellation._FLOWS).filters) == 1


def test_a_console_that_nobody_reads_does_not_end_the_run() -> None:
    """That of a worker that is gone: rich ends the process by the first line that it cannot write."""
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w") as pipe:
        handler = PrefectConsoleHandler(pipe)
        logging.getLogger().addHandler(handler)
        try:
            with Cancellable():
                for line in ("a", "b"):
                    logging.getLogger().error(line)
        finally:
            logging.getLogger().removeHandler(handler)
            handler.console.file = io.StringIO()
        assert handler.console.quiet
        with suppress(BrokenPipeError):
            pipe.close()


def test_the_state_of_a_flow_is_left_to_its_worker_and_the_log_is_sent(
    sender: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is Cancelled while its worker waits for the end of the process would be so again after a Retry."""
    monkeypatch.setattr(cancellation, "_is_cancelled", lambda run, retries: True)
    monkeypatch.setenv(WORKER, str(uuid.uuid4()))
    with pytest.raises(TerminationSignal):
        told_to_end(TerminationSignal(15))
    logging.getLogger(cancellation._FLOWS).error("Crash detected! Execution was aborted by a termination signal.")
    assert (sender.waiting, sender.sent) == ([], [SAVED, WORDS])


def test_a_signal_that_cancels_nothing_goes_on_to_prefect_behind_the_log(
    sender: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's engine dies by it at once."""
    monkeypatch.setattr(cancellation, "_is_cancelled", lambda run, retries: False)
    with pytest.raises(TerminationSignal):
        told_to_end(TerminationSignal(15))
    assert (sender.waiting, sender.sent) == ([], [SAVED])
    assert told.is_set()


def test_an_error_of_a_flow_is_left_as_it_is(sender: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_run: str, retries: int) -> bool:
        raise AssertionError("asked")

    monkeypatch.setattr(cancellation, "_is_cancelled", never)
    with pytest.raises(ValueError, match="broken"):
        told_to_end(ValueError("broken"))
    assert not told.is_set()


@pytest.mark.parametrize(("refusals", "retries", "known"), [(0, 0, True), (2, 2, True), (1, 0, False), (9, 2, False)])
def test_a_busy_server_is_asked_again_where_the_state_hangs_on_it(
    refusals: int, retries: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = BusyServer(refusals, 503)
    monkeypatch.setattr(cancellation, "_ANSWER_SECONDS", 90.0)  # of a busy machine
    try:
        with temporary_settings({PREFECT_API_URL: server.url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}):
            assert cancellation._is_cancelled(str(uuid.uuid4()), retries) == known
        assert server.refused == min(refusals, retries + 1)
    finally:
        server.close()


def test_a_server_that_is_away_cancels_nothing() -> None:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        assert not cancellation._is_cancelled(str(uuid.uuid4()), 0)
