"""What becomes of the memory that large tensors leave: glibc keeps it for the next ones.

By itself it gives a tensor of more than 32 MiB pages of its own and returns them to the kernel when the tensor ends,
which then zeroes new ones for the next layer, micro-batch and step. Embedding pictures of 224 pixels, 128 at a time, by
EfficientNet-Lite0 took 72 s of a CPU that way, 52 of them in the kernel, and 21 to 25 s with what is set here (one
thread, two-core EPYC in a virtual machine, where a new page costs 4 us). Towers whose tensors are smaller gain nothing.

See mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html; with another C library all of it does nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_NEVER = -1
_OF_ITS_OWN = 1 << 30  # bytes from which a tensor gets pages of its own after all
_ASKED_FOR = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed() -> None:
    """Keep freed memory in this process from now on; where the environment sets glibc's thresholds, these stay."""
    libc = _glibc()
    if libc is not None and not any(name in os.environ for name in _ASKED_FOR):
        libc.mallopt(_MMAP_THRESHOLD, _OF_ITS_OWN)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def give_back() -> None:
    """Return to the kernel what is free now, so that it counts as free memory of the machine."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
