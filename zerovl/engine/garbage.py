"""Python's garbage collection at the same steps on all ranks, over what a run itself has made.

On its own Python collects whenever enough objects were made: on each rank at another moment, while the others wait for
it at the next collective, and over all objects of the libraries that a training imports.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STEPS = 50


@contextmanager
def collected_every(steps: int = _STEPS) -> Iterator[Callable[[int], None]]:
    """Give a function that is called after each step with its number, and collects every so many.

    What is there at the start is looked through once and then never again. After the block all is as it was before:
    where a process has frozen its objects already, that is what is never looked through, in the block and after it.
    """
    enabled, frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    if not frozen:
        gc.freeze()
    gc.disable()

    def after(step: int) -> None:
        if step % steps == 0:
            gc.collect()

    try:
        yield after
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()
