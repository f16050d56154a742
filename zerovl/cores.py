"""How many cores this process may use: in a container or under a scheduler fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def core_count() -> int:
    """Return those that its affinity names (taskset, Slurm, cpusets), and no more than its quota pays for, rounded up.

    A container's `--cpus` and a pod's limit are quotas: more threads than that wait for each other's turn. See
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files.
    """
    named = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([named, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the cores that the control groups of this process, and those above them, are given."""
    lines: list[str] = []
    with suppress(OSError):  # another system
        lines = _OWN_GROUPS.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        files = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us") if controllers else ("cpu.max",)
        group = PurePosixPath(path)
        for place in (group, *group.parents):  # in a container the first ones are often not to be seen
            with suppress(OSError, ValueError):  # or not limited: "max 100000"
                quota, period = " ".join(_read(file, place) for file in files).split()
                if int(quota) > 0:
                    yield int(quota) / int(period)


def _read(file: str, group: PurePosixPath) -> str:
    root, name = (_GROUPS / file).parent, Path(file).name
    return (root / str(group).lstrip("/") / name).read_text()
