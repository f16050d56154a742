"""How a process of our own starts and ends: what Python's garbage collection looks at there is not worth its time.

`import torch, timm, transformers` makes a million objects that stay: collecting among them took 2 of 12 s of a CPU, and
taking them apart at the end another 2 (a two-core EPYC, torch 2.11).
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress

_NEW_OBJECTS = 50_000  # that were made since the last collection, and not Python's 700


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
