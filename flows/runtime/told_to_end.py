"""Whether this process has been told to end: who tells it again cuts short what it saves, and what it says of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WORKER = "PREFECT__FLOW_RUN_ID"  # in the environment of a process that a worker has started
# Never cleared: a process has one run.
told = threading.Event()
by_itself = threading.Event()  # no worker will write how the run ended
# For what is only shown, of the 30 s in which a worker waits for the end: within them the run must save and say what.
LAST_SECONDS = 3.0


@contextmanager
def hears_of_it() -> Iterator[None]:
    """Note that the block was left by Ctrl-C or a signal, which Python raises as what is no `Exception`."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        told.set()
        raise


def tell() -> None:
    """Tell this process to end, as its worker would, unless it has been told."""
    if not (told.is_set() or by_itself.is_set()):
        by_itself.set()
        os.kill(os.getpid(), signal.SIGTERM)
