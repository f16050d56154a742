"""The interpreter that forks for all workers of a run of the tests: one for all, until the last of them ends."""

import signal
import uuid

import psutil
import pytest

from tests.support import fork_server
from tests.support.fork_server import ForkServer

# It imports nothing that takes long; what it serves, and how it ends, is the same.
LIGHT = """
import socket, sys
from tests.support.fork_server_process import serve
serve(socket.socket(fileno=int(sys.argv[1])))
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fork_server, "_PROGRAM", ("-c", LIGHT))
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "a run of workers")
    return uuid.uuid4().hex


def test_workers_of_a_run_share_it_and_what_one_started_ends_with_that_one(run: str) -> None:
    first, second = ForkServer(run), ForkServer(run)
    interpreter = first._process
    assert interpreter is not None
    assert second._process is None
    its, others = first.start("signal:pause"), second.start("signal:pause")
    assert {psutil.Process(child.pid).ppid() for child in (its, others)} == {interpreter.pid}
    first.stop()
    assert its.wait(60) == -signal.SIGKILL
    assert others.poll() is None
    assert second.start("gc:freeze").wait(60) == 0
    others.terminate()
    assert others.wait(60) == -signal.SIGTERM
    second.stop()
    assert interpreter.wait(60) == 0
    another = ForkServer(run)
    assert another._process is not None
    another.stop()
    assert another._process.wait(60) == 0


def test_one_that_does_not_start_is_said(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_PROGRAM", ("-c", "raise SystemExit(1)"))
    with pytest.raises(AssertionError, match="the fork server has not started"):
        ForkServer(run)
