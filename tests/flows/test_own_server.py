"""A run without a server starts one, and waits for it longer than Prefect does; the clock is imitated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.server.api import server as prefect_server
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from flows import command
from tests.support.prefect_api import wait_for

PREFECTS_OWN = 20  # seconds
Delayed = Callable[[float, float], None]


class Answers(BaseHTTPRequestHandler):
    """Says that it is healthy; the first time late."""

    late = 0.0

    def do_GET(self) -> None:
        pause, Answers.late = Answers.late, 0.0
        time.sleep(pause)
        with suppress(OSError):  # whoever asked may be gone
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"true")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def delayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Delayed]:
    """Make the next server listen after so many seconds of Prefect's waiting, and its first answer late."""
    opened: list[ThreadingHTTPServer] = []

    def delay(seconds: float, late: float) -> None:
        waited = 0.0
        Answers.late = late

        def wait(pause: float) -> None:
            nonlocal waited
            waited += pause
            if waited >= seconds and not opened:
                opened.append(ThreadingHTTPServer(("127.0.0.1", SubprocessASGIServer().port or 0), Answers))
                threading.Thread(target=opened[0].serve_forever, daemon=True).start()

        monkeypatch.setattr(prefect_server, "time", SimpleNamespace(sleep=wait))

    process = SimpleNamespace(
        poll=lambda: None, terminate=lambda: None, wait=lambda timeout: None, stdout=None, stderr=None
    )
    monkeypatch.setattr(SubprocessASGIServer, "_run_uvicorn_command", lambda self: process)
    with temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}, restore_defaults={PREFECT_API_URL}):
        yield delay
    SubprocessASGIServer().stop()
    for server in opened:
        server.shutdown()
        server.server_close()


def test_a_server_that_starts_in_more_than_prefects_seconds(delayed: Delayed) -> None:
    delayed(PREFECTS_OWN + 5, 0.0)
    limit = {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: PREFECTS_OWN}
    with temporary_settings(limit), pytest.raises(RuntimeError, match="Timed out"):
        command.start_own_server()
    SubprocessASGIServer().stop()
    delayed(PREFECTS_OWN + 5, 0.0)
    command.start_own_server()
    with get_client(sync_client=True) as client:
        assert client.api_healthcheck() is None


def test_a_server_that_is_too_busy_to_answer_at_once(delayed: Delayed, monkeypatch: pytest.MonkeyPatch) -> None:
    delayed(0.1, 1.0)
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, timeout=0.2))  # for Prefect's five seconds
    command.start_own_server()
    wait_for("the first question, whose answer came too late", lambda: Answers.late == 0.0)
    with get_client(sync_client=True) as client:
        assert client.api_healthcheck() is None


def test_a_run_with_a_server_starts_none(delayed: Delayed) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        command.start_own_server()
    assert not SubprocessASGIServer().running
