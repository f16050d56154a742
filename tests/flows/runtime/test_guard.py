"""Who is killed when a command does not end: what removes shared memory has time to do so."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.runtime import guard

# Each ignores SIGINT, says its process id and does not end.
ENDLESS = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
{first}
print(os.getpid(), flush=True)
time.sleep(60)
"""
SHARES_A_TENSOR = """
import torch.multiprocessing
torch.multiprocessing.set_sharing_strategy("file_system")
shared = torch.zeros(1).share_memory_()
"""


class Clock:
    """Stands for `time` in the guard: each sleep does something, and takes as many seconds as that returns."""

    def __init__(self, sleep: Callable[[], float]) -> None:
        self._sleep = sleep
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, _seconds: float) -> None:
        self._now += self._sleep()


def endless(mark: str, first: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", ENDLESS.format(first=first)],
        env={**os.environ, guard.MARK_VARIABLE: mark},
        stdout=subprocess.PIPE,
    )


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def test_what_a_killed_process_left_in_shared_memory_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep() -> float:
        time.sleep(0.05)
        return 0.0

    mark = uuid.uuid4().hex
    with endless(mark, SHARES_A_TENSOR) as process:
        [left] = Path("/dev/shm").glob(f"torch_{first_line(process)}_*")
        monkeypatch.setattr(guard, "time", Clock(sleep))
        guard.wait_for_all(mark, 0.0)
        assert process.wait(30) == -signal.SIGKILL
    assert not left.exists()


def test_a_remover_that_does_not_end_is_killed_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    mark, spared = uuid.uuid4().hex, []

    def sleep() -> float:
        other.wait(30)
        spared.append(remover.poll() is None)
        return guard._REMOVER_SECONDS / 2

    named = f"open('/proc/self/comm', 'w').write('{guard._REMOVER}')"
    with endless(mark, named) as remover, endless(mark, "") as other:
        assert first_line(remover)
        assert first_line(other)
        monkeypatch.setattr(guard, "time", Clock(sleep))
        guard.wait_for_all(mark, 0.0)
        assert remover.wait(30) == other.wait(30) == -signal.SIGKILL
    assert spared[:2] == [True, True]
