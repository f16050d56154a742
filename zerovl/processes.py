"""Ways for a child process to end with its parent, so that a kill leaves nobody behind, and a pool that Ctrl-C ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process, resource_tracker

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


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of fresh processes; what is no error, as Ctrl-C, ends them in the middle of what they do.

    An error lets them finish what they have in hand, and begin nothing else. On leaving the block all have ended.
    """
    _start_tracker()
    context = get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_pool_worker, initargs=(told,))
    try:
        yield pool
    except BaseException as error:
        if not isinstance(error, Exception):
            tell.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        tell.close()
        told.close()


def _start_tracker() -> None:
    """Start Python's process that removes semaphores of killed processes, before a pool does, without its warning.

    After a kill, as for want of memory, it speaks of leaks, removes them, and is the last line that anybody sees.
    """
    variable = "PYTHONWARNINGS"
    before = os.environ.get(variable)
    os.environ[variable] = ",".join(filter(None, (before, "ignore:resource_tracker")))
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


def start_pool_worker(told: connection.Connection | None = None) -> None:
    """Initialise a worker: Ctrl-C is left to the parent, whose end, by a kill too, is its own.

    Args:
        told: ends the worker at once when its other side is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        ends = [parent.sentinel] if told is None else [parent.sentinel, told]
        threading.Thread(target=_end_with, args=(ends,), daemon=True).start()


def _end_with(ends: list[int | connection.Connection]) -> None:
    connection.wait(ends)
    os._exit(1)
