"""What benchmarks.runs_at_once counts as lost, and how long it waits."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import runs_at_once
from benchmarks.imitated_run import LINES, STAGES, line_of
from benchmarks.runs_at_once import Server, expected, lost


def test_what_did_not_arrive_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line_of(stage, number) for stage in range(STAGES) for number in range(LINES)]
    states = [{"type": state} for state in runs_at_once.STATES]
    artifacts = [{"key": f"page-{stage}", "data": ""} for stage in range(STAGES)]
    artifacts += [{"key": f"progress-stage-{stage}", "data": 100} for stage in range(1, STAGES)]
    artifacts += [{"key": "progress-stage-0", "data": 95}]  # its last state is missing

    def ask(path: str, content: Any = None, method: str = "POST") -> Any:
        answers = {
            "/flow_run_states/?flow_run_id=a": states[:2],
            "/task_runs/filter": [{"id": number} for number in range(STAGES)],
            "/artifacts/filter": artifacts,
        }
        return answers.get(path, states)

    server = Server(0)
    monkeypatch.setattr(server, "ask", ask)
    monkeypatch.setattr(server, "lines", lambda run: Counter(lines[:-3]))
    found = lost([server.arrived("a")], expected(1))
    assert found == {"states of runs": 1, "states of tasks": 0, "pages": 0, "bars at their end": 1, "lines": 3}
    assert lost([], expected(2)) == expected(2)  # runs that never came to their end


def test_a_server_that_ends_at_its_start_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("the port is taken")
    ended = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    ended.wait()
    with pytest.raises(SystemExit, match="ended with status 3:\nthe port is taken"):
        Server(0).wait(ended, tmp_path / "log")


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10_000, 200))
    monkeypatch.setattr(runs_at_once.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(runs_at_once.time, "sleep", lambda _: None)

    def refused(*_: object, **__: object) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "request", refused)
    with pytest.raises(TimeoutError, match="/logs/filter: the server had no answer for 600 s"):
        Server(0).ask("/logs/filter")
