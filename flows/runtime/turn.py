"""One training or evaluation of the flows at a time on a machine without GPUs; where there are GPUs they are leased.

`zerovl train` and the others lease GPUs themselves (`zerovl.own_gpus`), from a terminal as in a flow: two runs that fit
side by side go side by side. Of the CPU there is one, and two trainings on it help nobody; but a command in a terminal
is its user's to decide on, so the flow takes the turn, and the guard of the job's processes holds it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zerovl import gpu_leases, gpu_names


@contextmanager
def hold_turn(holder: str, say: Callable[[str], None]) -> Iterator[tuple[int, ...]]:
    """Wait for the CPU and hold it; gives file descriptors, to be kept by the job's processes: none on a GPU machine.

    Args:
        holder: a name for those who wait meanwhile.
        say: hears for whom this one waits.
    """
    if gpu_names.visible().names:
        yield ()
        return
    held = gpu_leases.take(1, gpu_leases.CPU, holder, say)
    try:
        yield held.descriptors
    finally:
        held.release()
