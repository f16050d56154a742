"""The GPUs of this process: leased before CUDA starts, held until the process ends, and the only ones that it sees.

CUDA reads `CUDA_VISIBLE_DEVICES` once, so a process has its GPUs for good, and the first lease is the only one. Ranks
and helpers inherit what it sees and end with it. On a machine without GPUs nothing is leased.
"""

from __future__ import annotations

import os
from pathlib import Path

from zerovl import gpu_leases, gpu_names
from zerovl.errors import ZeroVLError
from zerovl.log import logger

_RUN = "ZEROVL_RUN"  # the name of a run of the flows, as in the registry's history
_held: list[gpu_leases.Held] = []


def count(asked: int) -> int:
    """Return how many GPUs `machine.ranks` stands for, 0 for all of them; 0 where there are none.

    Raises `ZeroVLError` where more are asked for than this process may ever have.
    """
    there = gpu_names.visible()
    if there.names and asked > there.usable:
        raise ZeroVLError(f"machine.ranks is {asked}, to be had: {there}; set it to 0 for all of them")
    return min(asked or there.usable, there.usable)


def count_up_to(asked: int) -> int:
    """As `count`, for work that any number of ranks does: no more than there are."""
    return count(min(asked, gpu_names.visible().usable))


def take_for(ranks: int | None, command: str) -> int:
    """Lease a GPU for each of `ranks` processes, as far as there are any; None: all that nobody has now, at least one.

    Returns how many processes there are to be; without `ranks` one a GPU, and one on a machine that has none.
    """
    there = gpu_names.visible()
    gpus = count_up_to(max(1, gpu_leases.look(there.names).free) if ranks is None else ranks)
    take(gpus, command)
    return max(1, gpus) if ranks is None else ranks


def take(gpus: int, command: str, wait_minutes: float = 0.0) -> None:
    """Lease GPUs for this process and all that it starts, and hide the others from them; waits for its turn.

    Args:
        gpus: as `count` has them; with 0 nothing is leased.
        command: the word after `zerovl`, for those who wait meanwhile.
        wait_minutes: to wait at most; 0: for as long as it takes.

    Raises:
        ZeroVLError: they did not come in time.
    """
    if not gpus or _held:
        return
    holder = os.environ.get(_RUN) or f"`zerovl {command}` in {Path.cwd()} (process {os.getpid()})"
    seconds = wait_minutes * 60 or float("inf")

    try:
        held = gpu_leases.take(gpus, gpu_names.visible().names, holder, logger().info, seconds)
    except ZeroVLError as error:
        if wait_minutes:
            raise ZeroVLError(f"{error}; raise machine.gpu_wait_minutes, or set it to 0 to wait on") from None
        raise
    _held.append(held)
    os.environ[gpu_names.VISIBLE] = ",".join(held.devices)
