"""End ranks of the same launcher that do not answer."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from zerovl.distributed.heartbeats import Heartbeat


def end_siblings(heartbeats: Sequence[Heartbeat]) -> None:
    """Kill ranks that do not answer, where they are children of the same launcher as this process.

    The launcher would do it too, but a torchrun that is told to end waits as long for a stopped rank as
    for one that saves. SIGUSR2 first: a rank that lives but cannot run Python code shows its stacks.
    """
    alive = [each for each in heartbeats if each.host == socket.gethostname() and _parent(each.pid) == os.getppid()]
    for each in alive:
        _send(each.pid, signal.SIGUSR2)
    if alive:
        time.sleep(1)
    for each in alive:
        if _parent(each.pid) == os.getppid():
            _send(each.pid, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    with suppress(OSError):  # it may have ended since it was looked for
        os.kill(pid, number)


def _parent(pid: int) -> int | None:
    """The parent of a process, on Linux."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[1])
