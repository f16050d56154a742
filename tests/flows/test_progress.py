"""What a run tells the server arrives, also where the server refuses it a few times."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED, temporary_settings

from flows import outbox, progress
from flows.progress import ProgressReporter
from flows.runtime.process import Bar
from flows.runtime.told_to_end import hears_of_it
from tests.support.busy_server import BusyServer
from tests.support.prefect_api import wait_for

LOGGER = logging.getLogger("test-progress")


@pytest.fixture
def busy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[BusyServer]:
    """A server that refuses as often as the test asks for, and with the status that it asks for."""
    monkeypatch.setattr(progress, "get_run_logger", lambda: LOGGER)
    monkeypatch.setattr(progress, "_EVERY", 0.02)
    made = BusyServer(*request.param)
    with temporary_settings({PREFECT_API_URL: made.url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}):
        yield made
    made.close()


@pytest.mark.parametrize("busy", [(4,)], indirect=True)
def test_the_last_state_of_a_bar_arrives(busy: BusyServer) -> None:
    with ProgressReporter("train") as reporter:
        reporter.bar(Bar("train", 43.0, "64/149"))
    assert busy.refused == 4
    assert busy.taken[-1]["data"] == 100.0
    assert busy.taken[-1]["description"].startswith("**train** done in ")


@pytest.mark.parametrize("busy", [(4,)], indirect=True)
def test_a_stage_does_not_wait_for_its_last_state_but_the_run_does(
    busy: BusyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_END_SECONDS", 0.0)
    with outbox.outbox(tmp_path), ProgressReporter("train") as reporter:
        reporter.bar(Bar("train", 43.0, "64/149"))
    assert busy.refused == 4
    assert busy.taken[-1]["data"] == 100.0


@pytest.mark.parametrize("busy", [(1_000_000,)], indirect=True)
def test_a_stage_that_is_told_to_end_waits_for_seconds_only(busy: BusyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_END_SECONDS", 10_000.0)
    monkeypatch.setattr(progress, "LAST_SECONDS", 0.2)
    reporter = ProgressReporter("train")
    with pytest.raises(KeyboardInterrupt), reporter, hears_of_it():
        raise KeyboardInterrupt
    assert reporter._thread.is_alive()
    busy.refusals = 0
    wait_for("the end of its thread", lambda: not reporter._thread.is_alive())
    assert "stopped after" in busy.taken[-1]["description"]


@pytest.mark.parametrize("busy", [(1_000_000, 422)], indirect=True)
def test_what_is_refused_for_good_is_not_sent_again(busy: BusyServer) -> None:
    with ProgressReporter("train") as reporter:
        reporter.bar(Bar("train", 43.0, "64/149"))
    wait_for("the end of its thread", lambda: not reporter._thread.is_alive())
    assert busy.refused == 1


def test_noise_is_not_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "get_run_logger", lambda: LOGGER)
    caplog.set_level(logging.INFO, LOGGER.name)
    reporter = ProgressReporter("prepare")
    lock = (
        "WARNING: Process '/dvc/__main__.py repro --pull prepare' with (Pid 3983), in RWLock-file 'data/shards' had "
        "been killed. Auto removed it from the lock file."
    )
    for line in ("Running stage 'code':", "> zerovl code", "Running stage 'prepare':", "  git add dvc.lock", lock):
        reporter.line(line)
    assert caplog.messages == ["Running stage 'prepare':"]
