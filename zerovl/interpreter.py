"""How a process starts and ends: what Python's garbage collection looks at there is not worth its time.

`import torch, timm, transformers` makes a million objects that stay: collecting among them took 2 of 12 s of a CPU, and
taking them apart at the end another 2 (a two-core EPYC, torch 2.11).
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_NEW_OBJECTS = 50_000  # that were made since the last collection, and not Python's 700
_importing = threading.Lock()


def of_its_own(command: Callable[[], int]) -> int:
    """Run what a process is for; with its status the process ends as soon as what was registered for its end has run.

    To be called before anything heavy is imported. Where `command` raises, or something was registered for the
    end of the process before (a profiler), Python ends as it always does.
    """
    gc.set_threshold(_NEW_OBJECTS)
    status: int | None = None

    def leave() -> None:
        if status is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    if not atexit._ncallbacks():  # they would come after this one, which comes after all that is registered from now on
        atexit.register(leave)
    status = command()
    return status


@contextmanager
def few_collections() -> Iterator[None]:
    """Collect garbage rarely while something large is imported, in a process that is somebody else's.

    The settings that were found are there again afterwards. A second thread waits until the first one has imported,
    so that it does not find the first one's settings instead. It is not to be entered twice by one thread.
    """
    with _importing:
        found = gc.get_threshold()
        if found[0]:  # 0: the program has switched collections off
            gc.set_threshold(max(found[0], _NEW_OBJECTS), *found[1:])
        try:
            yield
        finally:
            gc.set_threshold(*found)
