"""What a run tells the server arrives, also where the server refuses it a few times."""

from __future__ import annotations

import contextvars
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from prefect.artifacts import create_markdown_artifact
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED, temporary_settings

from flows import progress
from flows.progress import ProgressReporter, send_page
from flows.runtime.process import Bar

LOGGER = logging.getLogger("test-progress")


class BusyServer:
    """Prefect's API of artifacts, of which the first `refusals` writes are answered as by a locked SQLite."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.refused = refusals, 0
        self.taken: list[dict[str, Any]] = []
        busy = self

        class Handler(BaseHTTPRequestHandler):
            def write(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if busy.refused < busy.refusals:
                    busy.refused += 1
                    self._answer(500, {"exception_message": "database is locked"})
                    return
                busy.taken.append(content)
                now = "2026-01-01T00:00:00Z"
                self._answer(201, {"id": str(uuid.UUID(int=1)), "created": now, "updated": now, **content})

            do_POST = do_PATCH = write  # noqa: N815, names of http.server

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def busy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[BusyServer]:
    """A server that refuses as often as the test asks for; pauses are a hundredth of the real ones."""
    monkeypatch.setattr(progress, "get_run_logger", lambda: LOGGER)
    monkeypatch.setattr(progress, "_PAUSES", tuple(pause / 100 for pause in progress._PAUSES))
    monkeypatch.setattr(progress, "_EVERY", 0.02)
    made = BusyServer(request.param)
    with temporary_settings({PREFECT_API_URL: made.url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}):
        yield made
    made.server.shutdown()
    made.server.server_close()


def send_curves() -> None:
    """In a thread of its own: a browser of another test keeps its event loop in the main thread of this worker.

    There Prefect would give a coroutine back instead of sending anything.
    """
    page = partial(create_markdown_artifact, "a picture", key="curves")
    thread = threading.Thread(target=contextvars.copy_context().run, args=(send_page, page))
    thread.start()
    thread.join()


@pytest.mark.parametrize("busy", [0, 1, 5], indirect=True)
def test_a_page_that_is_refused_is_sent_again(busy: BusyServer) -> None:
    send_curves()
    assert busy.refused == busy.refusals
    assert [each["key"] for each in busy.taken] == ["curves"]


@pytest.mark.parametrize("busy", [10_000], indirect=True)
def test_a_page_that_never_arrives_is_a_warning(busy: BusyServer, caplog: pytest.LogCaptureFixture) -> None:
    send_curves()
    assert busy.refused == len(progress._PAUSES) + 1
    assert "a page of the Artifacts tab could not be sent" in caplog.text


def test_a_page_is_not_sent_for_ever(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is away holds up each request for minutes by itself: then once is enough."""
    monkeypatch.setattr(progress, "get_run_logger", lambda: LOGGER)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    calls = []

    def send() -> None:
        calls.append(1)
        raise httpx.ConnectError("away")

    send_page(send)
    assert len(calls) == 1
    assert "away" in caplog.text


def test_an_error_of_the_page_itself_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("verdict")

    with pytest.raises(KeyError):
        send_page(broken)


@pytest.mark.parametrize("busy", [4], indirect=True)
def test_the_last_state_of_a_bar_arrives(busy: BusyServer) -> None:
    with ProgressReporter("train") as reporter:
        reporter.bar(Bar("train", 43.0, "64/149"))
    assert busy.refused == 4
    assert busy.taken[-1]["data"] == 100.0
    assert busy.taken[-1]["description"].startswith("**train** done in ")


def test_noise_is_not_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "get_run_logger", lambda: LOGGER)
    caplog.set_level(logging.INFO, LOGGER.name)
    reporter = ProgressReporter("prepare")
    for line in ("Running stage 'code':", "> zerovl code", "Running stage 'prepare':", "  git add dvc.lock"):
        reporter.line(line)
    assert caplog.messages == ["Running stage 'prepare':"]
