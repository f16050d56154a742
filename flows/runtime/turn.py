"""One training or evaluation of the flows at a time on a machine without GPUs; where there are GPUs they are leased.

`zerovl train` and the others lease GPUs themselves (`zerovl.own_gpus`), from a terminal as in a flow: two runs that fit
side by side go side by side. Of the CPU there is one, and two trainings on it help nobody; but a command in a terminal
is its user's to decide on, so the flow takes the turn, and the guard of the job's processes holds it too.

The code of an older commit, which `reproduce` runs, leases nothing and takes all GPUs that it sees: a flow holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl import gpu_leases, gpu_names

_LEASES = Path("zerovl", "own_gpus.py")  # with which commands lease for themselves


def devices_to_hold(code: Path) -> tuple[str, ...]:
    """Return what a flow holds for a job that runs the code of a checkout: nothing where the job leases for itself.

    Raises:
        ZeroVLError: nvidia-smi fails.
    """
    gpus = gpu_names.visible().names
    if not gpus:
        return gpu_leases.CPU
    return () if (code / _LEASES).is_file() else gpus


@contextmanager
def hold_turn(holder: str, devices: tuple[str, ...], say: Callable[[str], None]) -> Iterator[tuple[int, ...]]:
    """Wait for all of the devices and hold them; gives file descriptors, to be kept by the job's processes.

    Args:
        holder: a name for those who wait meanwhile.
        devices: as `devices_to_hold` has them; with none there is nothing to wait for.
        say: hears for whom this one waits.
    """
    if not devices:
        yield ()
        return
    held = gpu_leases.take(len(devices), devices, holder, say)
    try:
        yield held.descriptors
    finally:
        held.release()
