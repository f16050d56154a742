"""Memory of this machine: what is free for a rank, the most that the process ever used, and when it ran out."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

import torch

from zerovl import heap

MARGIN = {"cuda": 0.92, "cpu": 0.8}  # share of the free memory that is planned with
_UNLIMITED = 1 << 60
# PyTorch's allocator has an exception of its own. Libraries that allocate past it say it in words.
_RAN_OUT = (
    "out of memory",  # the driver, and NCCL, which quotes it
    "failed to cuda malloc",  # NCCL's last word of such a failure
    "failed to cuda calloc",
    "_status_alloc_failed",  # cuBLAS, cuDNN
    "unable to find an engine to execute this computation",  # cuDNN: none whose workspace fits
    "defaultcpuallocator: can't allocate memory",
)


def free_memory(device: torch.device) -> int:
    """Bytes that this rank can still take on its device; on the CPU the ranks of a machine share what is free."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))  # all of it, or this process's share
        return max(0, min(free, allowed - reserved)) + reserved - torch.cuda.memory_allocated(device)
    return free_host_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_host_memory(root: Path = Path("/")) -> int:
    """Bytes free on the machine or below the limit of its container, whichever is less.

    What this process keeps for later tensors is given back first, so that it counts.
    """
    heap.give_back()
    meminfo = root / "proc" / "meminfo"
    if not meminfo.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # not Linux: half of what there is
    (available,) = re.findall(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    return max(0, min([int(available) * 1024, *_below_limits(root)]))


def _below_limits(root: Path) -> list[int]:
    """Limit minus use of each control group that this process is in, outer ones included; version 1 and 2."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        mount = root / "sys" / "fs" / "cgroup" / ("memory" if controllers else "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        group = mount / path.lstrip("/")
        # In a container the path may be the host's, which is not visible: its own group is then the mount itself.
        for folder in [group, *group.parents]:
            if folder.is_relative_to(mount):
                found += _below_limit(folder, *names)
    return found


def _below_limit(folder: Path, limit_name: str, use_name: str) -> list[int]:
    try:
        limit = (folder / limit_name).read_text().strip()
        used = int((folder / use_name).read_text())
        statistics = (folder / "memory.stat").read_text()
    except (OSError, ValueError):
        return []
    if limit == "max" or int(limit) >= _UNLIMITED:
        return []
    # Files in the page cache count as used, yet the kernel drops them when memory is asked for.
    cached = re.search(r"^(?:total_)?inactive_file (\d+)", statistics, re.MULTILINE)
    return [int(limit) - used + int(cached[1] if cached else 0)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _RAN_OUT)


def peak_memory(device: torch.device) -> int:
    """The most bytes that tensors held on a GPU, or that this process had resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_memory()


def peak_resident_memory() -> int:
    """The kernel's high-water mark of this process, in bytes."""
    try:
        # ru_maxrss also holds what the starting process had before exec; VmHWM is of this program alone.
        return 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_in_use(device: torch.device) -> int:
    """What `peak_memory` counts, now: tensors on a GPU, or resident pages of this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return peak_resident_memory()
