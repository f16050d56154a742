"""Which GPUs a process may use, by names that mean the same to every process of the machine; torch is not asked.

A name is what `CUDA_VISIBLE_DEVICES` takes: a GPU's UUID, or that of a MIG device. What that variable leaves is all
there is: a scheduler or a user has set it. Its numbers are read as `nvidia-smi` counts (`CUDA_DEVICE_ORDER=PCI_BUS_ID`;
on a machine with GPUs of one kind CUDA counts so anyway), and after an entry that names nothing the rest is ignored,
as CUDA does ("CUDA Environment Variables" in the CUDA C++ Programming Guide).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zerovl.errors import ZeroVLError

VISIBLE = "CUDA_VISIBLE_DEVICES"
IMITATED = "ZEROVL_GPUS"  # names with commas between, in place of what nvidia-smi lists
_DEVICE = "ZEROVL_DEVICE"  # of `zerovl.device`, which imports torch
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))  # there where NVIDIA's or AMD's is loaded
_SECONDS = 60.0  # the driver of a machine without nvidia-persistenced takes seconds to start
# "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c-...)", and below it "  MIG 1g.5gb Device 0: (UUID: MIG-...)"
_LINE = re.compile(r"^\s*(?P<kind>GPU|MIG)\b.*\(UUID: (?P<name>[^)]+)\)\s*$")


@dataclass(frozen=True)
class Gpu:
    """A GPU of the machine and the MIG devices that it is divided into, which CUDA offers in its place."""

    name: str
    parts: tuple[str, ...] = ()

    @property
    def offered(self) -> tuple[str, ...]:
        """Return what CUDA can use of it."""
        return self.parts or (self.name,)


@dataclass(frozen=True)
class Visible:
    """The GPUs that this process may use, none where it computes on the CPU."""

    names: tuple[str, ...]

    @property
    def usable(self) -> int:
        """Return how many of them one process can see: all, but of MIG devices CUDA shows it the first alone."""
        return min(len(self.names), 1) if any(name.startswith("MIG-") for name in self.names) else len(self.names)

    def __str__(self) -> str:
        limit = os.environ.get(VISIBLE)
        there = "1 GPU" if self.usable == 1 else f"{self.usable} GPUs"
        return there if limit is None else f"{there} ({VISIBLE} is {limit!r})"


def visible() -> Visible:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` and ZEROVL_DEVICE leave; raises `ZeroVLError` where nvidia-smi fails.

    None where there is no `nvidia-smi`: such a machine has none, or they cannot be told apart.
    """
    if os.environ.get(_DEVICE) == "cpu":
        return Visible(())
    limit = os.environ.get(VISIBLE)
    return Visible(selected(_there(), limit))


def torch_may_find_one() -> bool:
    """Tell whether torch may compute on a GPU here, one that `visible` cannot name included: without asking torch."""
    return os.environ.get(_DEVICE) != "cpu" and (bool(visible().names) or any(path.exists() for path in _DRIVERS))


def selected(gpus: Sequence[Gpu], limit: str | None) -> tuple[str, ...]:
    """Return the names of what `CUDA_VISIBLE_DEVICES` leaves of `gpus`; None: it is not set."""
    if limit is None:
        return tuple(name for gpu in gpus for name in gpu.offered)
    names: list[str] = []
    for entry in limit.split(","):
        found = _named(gpus, entry.strip())
        if found is None or found in names:  # CUDA: no device at all where one is named twice
            return tuple(names) if found is None else ()
        names.append(found)
    return tuple(names)


def _named(gpus: Sequence[Gpu], entry: str) -> str | None:
    """Return the name of the one device that an entry means: its name, a number, or the beginning of a UUID."""
    for gpu in gpus:
        if entry == gpu.name:  # first, since an imitated one may be called by a number
            return gpu.offered[0]
    if entry.isdecimal():
        number = int(entry)
        return gpus[number].offered[0] if number < len(gpus) else None
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    found = {gpu.offered[0] for gpu in gpus if gpu.name.startswith(entry)}
    found |= {name for gpu in gpus for name in gpu.parts if name.startswith(entry)}
    return found.pop() if len(found) == 1 else None


def _there() -> list[Gpu]:
    imitated = os.environ.get(IMITATED)
    if imitated is not None:
        return [Gpu(name.strip()) for name in imitated.split(",") if name.strip()]
    return listed(_nvidia_smi())


@cache
def _nvidia_smi() -> str:
    """Return what it lists, nothing where it is not there or finds no driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.TimeoutExpired) as error:
        if isinstance(error, PermissionError) and shutil.which("nvidia-smi") is None:
            return ""  # what is closed is a folder of PATH: that of another user, as after `su`
        raise ZeroVLError(f"nvidia-smi -L: {error}; look at the driver, or set {_DEVICE}=cpu to do without") from None
    return done.stdout


def listed(text: str) -> list[Gpu]:
    """Return the GPUs of the output of `nvidia-smi -L`."""
    gpus: list[Gpu] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and match["kind"] == "GPU":
            gpus.append(Gpu(match["name"]))
        elif match and gpus:
            gpus[-1] = Gpu(gpus[-1].name, (*gpus[-1].parts, match["name"]))
    return gpus
