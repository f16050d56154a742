"""Whether this process has been told to end: who tells it again cuts short what it saves, and what it says of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

told = threading.Event()  # never cleared: a process has one run
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
