"""No page of the Artifacts tab is lost where the server is busy, and none holds up the run that it is about."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED, temporary_settings

from flows import outbox
from flows.outbox import UNSENT, Page
from tests.support.busy_server import BusyServer
from tests.support.prefect_api import wait_for

LOGGER = logging.getLogger("test-outbox")
RUN = uuid.UUID(int=7)
CURVES = Page("curves", "What training did", "a picture")
RULES = Page("validation-rules", "The data against its rules", '[{"rule": "leaked"}]', "table")
Serve = Callable[..., BusyServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server that refuses; pauses are a hundredth of the real ones, and patience is for a busy machine."""
    monkeypatch.setattr(outbox, "get_run_logger", lambda: LOGGER)
    monkeypatch.setattr(outbox, "get_task_and_flow_run_ids", lambda: (None, RUN))
    monkeypatch.setattr(outbox, "_PAUSES", tuple(pause / 100 for pause in outbox._PAUSES))
    monkeypatch.setattr(outbox, "_PATIENCE", 10_000.0)
    monkeypatch.setattr(outbox, "_LAST_SECONDS", 0.2)
    with ExitStack() as opened:

        def start(refusals: int, status: int = 500, lost: bool = False) -> BusyServer:
            made = BusyServer(refusals, status, lost)
            opened.callback(made.close)
            settings = {PREFECT_API_URL: made.url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}
            opened.enter_context(temporary_settings(settings))
            return made

        yield start


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("refusals", [0, 1, 12])
def test_pages_arrive_where_the_server_refuses_them_at_first(
    serve: Serve, tmp_path: Path, refusals: int, status: int
) -> None:
    busy = serve(refusals, status=status)
    with outbox.outbox(tmp_path):
        outbox.send(CURVES)
        outbox.send(RULES)
    assert busy.refused == refusals
    assert {each["key"]: each["type"] for each in busy.taken} == {"curves": "markdown", "validation-rules": "table"}
    assert {each["flow_run_id"] for each in busy.taken} == {str(RUN)}
    assert not (tmp_path / UNSENT).exists()


def test_a_page_whose_answer_was_lost_is_there_once(serve: Serve, tmp_path: Path) -> None:
    busy = serve(1, status=503, lost=True)
    with outbox.outbox(tmp_path):
        outbox.send(CURVES)
    assert [each["key"] for each in busy.taken] == ["curves"]


def test_the_run_goes_on_meanwhile_and_the_newest_page_of_a_key_is_sent(serve: Serve, tmp_path: Path) -> None:
    busy = serve(10_000)
    with outbox.outbox(tmp_path):
        outbox.send(Page("curves", "What training did", "half"))
        wait_for("a first attempt", lambda: busy.refused)
        outbox.send(Page("curves", "What training did", "whole"))
        busy.refusals = 0
    assert busy.taken[-1]["data"] == "whole"  # the other one may have been on its way


def test_what_never_arrives_is_in_the_log_and_in_a_file(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 3.0)
    busy = serve(10_000)
    with outbox.outbox(tmp_path):
        outbox.send(CURVES)
        outbox.send(RULES)
    assert not busy.taken
    assert busy.refused >= 2
    kept = tmp_path / UNSENT / "curves.md"
    assert kept.read_text() == "What training did\n\na picture\n"
    assert json.loads((tmp_path / UNSENT / "validation-rules.json").read_text()) == [{"rule": "leaked"}]
    assert "page curves did not reach the Artifacts tab (PrefectHTTPStatusError: Server error '500" in caplog.text
    assert f"it is in {kept}" in caplog.text


def test_what_the_server_will_never_take_is_sent_once(serve: Serve, tmp_path: Path) -> None:
    busy = serve(10_000, status=422)
    with outbox.outbox(tmp_path):
        outbox.send(CURVES)
    assert busy.refused == 1
    assert (tmp_path / UNSENT / "curves.md").is_file()


def test_a_run_that_is_told_to_end_waits_for_seconds_only(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker kills it after thirty; it would neither have saved nor have said what."""
    monkeypatch.setattr(outbox, "LAST_SECONDS", 0.2)
    for seconds in ("_LAST_SECONDS", "_PATIENCE"):
        monkeypatch.setattr(outbox, seconds, 10_000.0)
    serve(10_000)

    def interrupted() -> None:
        with outbox.outbox(tmp_path):
            outbox.send(CURVES)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / UNSENT / "curves.md").is_file()


def test_a_run_that_fails_does_not_wait_for_its_pages(serve: Serve, tmp_path: Path) -> None:
    serve(10_000)

    def fail() -> None:
        with outbox.outbox(tmp_path):
            outbox.send(CURVES)
            raise KeyError("verdict")

    with pytest.raises(KeyError):
        fail()
    assert (tmp_path / UNSENT / "curves.md").is_file()
