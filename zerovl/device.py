"""What a process computes on: GPUs where there are any, or what the environment variable ZEROVL_DEVICE says.

`ZEROVL_DEVICE=cpu` leaves the GPUs of a machine alone (other work runs there, or a test wants what every machine has);
`ZEROVL_DEVICE=cuda` refuses to go on without one, where a driver that is not found would otherwise mean weeks on the
CPU. Nobody else asks torch whether there is a GPU (tests/test_device.py).
"""

from __future__ import annotations

import os

import torch

from zerovl.errors import ZeroVLError

VARIABLE = "ZEROVL_DEVICE"
_CHOICES = ("auto", "cpu", "cuda")


def uses_gpu() -> bool:
    """Whether this process computes on GPUs.

    Raises `ZeroVLError` where ZEROVL_DEVICE is not one of auto, cpu and cuda, or is cuda and there is none.
    """
    asked = os.environ.get(VARIABLE) or "auto"
    if asked not in _CHOICES:
        raise ZeroVLError(f"{VARIABLE} is {asked!r}; set it to cpu or cuda, or unset it for GPUs where there are any")
    if asked == "cpu":
        return False
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise ZeroVLError(
            f"{VARIABLE} is 'cuda' and torch finds no GPU; look at the driver and CUDA_VISIBLE_DEVICES, or unset it to "
            "compute on the CPU"
        )
    return there


def gpu_count() -> int:
    """How many GPUs this process may use, 0 where it computes on the CPU; raises as `uses_gpu`."""
    return torch.cuda.device_count() if uses_gpu() else 0


def rank_count(asked: int) -> int:
    """Return how many ranks `machine.ranks` stands for; 0 is one a GPU, or one on a machine without.

    Raises `ZeroVLError` where more are asked for than there are GPUs, and as `uses_gpu`.
    """
    gpus = gpu_count()
    ranks = asked or max(1, gpus)
    if 0 < gpus < ranks:
        raise ZeroVLError(f"machine.ranks is {ranks}, this machine has {gpus} GPUs; set it to 0 for one rank a GPU")
    return ranks


def own_device(local_rank: int = 0) -> torch.device:
    """Return the device of a rank by its number on this machine; raises as `uses_gpu`."""
    return torch.device("cuda", local_rank) if uses_gpu() else torch.device("cpu")
