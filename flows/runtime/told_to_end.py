"""Whether this process has been told to end: who tells it again cuts short what it saves, and what it says of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WORKER = "PREFECT__FLOW_RUN_ID"  # in the environment of a process that a worker has started
told = threading.Event()
by_itself = threading.Event()  # no worker will write how the run ended
cancelled = threading.Event()  # the server has said so
# For what is only shown, of the 30 s in which a worker waits for the end: within them the run must save and say what.
LAST_SECONDS = 3.0


@contextmanager
def hears_of_it() -> Iterator[None]:
    """Note that the block was left by Ctrl-C or a signal, which Python raises as what is no `Exception`."""
    try:
        yield
    except BaseException as error:
        note(type(error))
        raise


def note(raised: type[BaseException] | None) -> None:
    """Note what ended a block, if it is Ctrl-C or a signal."""
    if raised and not issubclass(raised, Exception):
        told.set()


def tell(is_cancelled: bool) -> None:
    """Tell this process to end, as a worker would, unless it has been told; its worker is gone, or did not."""
    again = told.is_set() or by_itself.is_set()
    if is_cancelled:
        cancelled.set()
    by_itself.set()
    if not again:
        os.kill(os.getpid(), signal.SIGTERM)


def forget() -> None:
    """Begin with nothing heard, for a run in a process that had one before."""
    for event in (told, by_itself, cancelled):
        event.clear()
