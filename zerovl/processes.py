"""Ways for a child process to end with its parent, so that a kill leaves nobody behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import connection, parent_process

_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def die_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask Linux to send this process a signal when the thread that started it ends; elsewhere nothing is done.

    Args:
        parent: process id that the parent must have; this process ends at once where it has gone before the call.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), number)


def start_pool_worker() -> None:
    """Initialise a worker of a process pool: Ctrl-C is left to the parent, whose end, by a kill too, is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
