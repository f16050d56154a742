"""`make ui` ends lost runs and skips late ones before its worker takes any, and goes on looking."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from flows.runtime.paths import Paths
from flows.server import ui, upkeep
from tests.support.ports import free_port

FIVE = timedelta(minutes=5)


class Ended:
    """A process that has ended; the UI then ends too."""

    returncode = 1

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `make ui` starts, in order; nothing of it is."""
    order: list[str] = []

    def start(words: list[str], *_: object) -> Ended:
        order.append(words[0])
        return Ended()

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(ui.signal, "signal", lambda *_: None)
    monkeypatch.setattr(ui, "_start", start)
    monkeypatch.setattr(ui, "_wait_until_healthy", lambda *_: order.append("healthy"))
    monkeypatch.setattr(ui.subprocess, "run", lambda *_, **__: order.append("deploy"))
    monkeypatch.setattr(ui, "_end", lambda *_: None)
    monkeypatch.setattr(ui.pushing, "sentence", lambda _: "")
    return order


@pytest.mark.parametrize("answers", [True, False], ids=["the server answers", "it does not yet"])
def test_upkeep_looks_before_the_worker_begins_and_goes_on(
    answers: bool,
    began: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    goes_on = threading.Event()
    intervals: list[float] = []

    def look_once() -> list[str]:
        began.append(f"look at {os.environ['PREFECT_API_URL']}")
        if not answers:
            raise httpx.ConnectError("nobody answers")
        return ["run tacky-heron is lost: Crashed"]

    monkeypatch.setattr(upkeep, "look_once", look_once)
    monkeypatch.setattr(upkeep, "go_on", lambda every: (intervals.append(every), goes_on.set()))
    port = free_port()
    assert ui.serve(Paths(tmp_path, tmp_path / "state"), port, free_port()) == 1
    assert began == ["server", "healthy", "deploy", f"look at http://127.0.0.1:{port}/api", "worker"]
    assert goes_on.wait(timeout=60.0)
    # What is lost is ended within five minutes of the server's return; only containers that a worker watches over wait.
    patience, (every,) = upkeep.Patience(), intervals
    assert max(patience.pending, patience.silent, patience.late, patience.away) + timedelta(seconds=every) <= FIVE
    said = capsys.readouterr().out
    assert ("run tacky-heron is lost: Crashed" if answers else "upkeep: nobody answers; it looks again in") in said
