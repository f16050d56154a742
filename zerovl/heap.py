"""How a process takes memory for large tensors, where each new page of 4 KiB costs the kernel's time.

By itself glibc gives a tensor of more than 32 MiB pages of its own and returns them when the tensor ends: the kernel
zeroes new ones for each layer, micro-batch and step. What that costs with EfficientNet-Lite0, one thread of a two-core
EPYC in a virtual machine, where a new page takes 4 us (towers whose tensors are smaller take what they took):

| | as it is | large pages | what is freed is kept |
|---|---|---|---|
| to embed 512 pictures of 224 pixels, 128 at a time | 72 s, 52 in the kernel | 27 s | 21 to 25 s |
| two decoupled steps of 256 pairs at 160 pixels | 126 s, 61 in the kernel | 94 s | 66 s |
| the same, peak of memory | 6.5 GiB | 7.3 GiB | 8.8 GiB |

What is kept gets holes where tensors of many sizes live long, as in a backward pass. So what embeds keeps it, and what
trains, whose memory is planned, takes large pages.

On a GPU PyTorch takes memory in segments of fixed sizes, in which captions of another length each step leave holes.
What trains has segments that grow instead; what that saves has not been measured yet.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_NEVER = -1
_OF_ITS_OWN = 1 << 30  # bytes from which a tensor gets pages of its own after all
_ASKED_FOR = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
_GPU_SETTINGS = "PYTORCH_ALLOC_CONF"
_GPU_ASKED_FOR = (_GPU_SETTINGS, "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")  # the older names


def keep_freed() -> None:
    """Keep freed memory in this process from now on; where the environment sets glibc's thresholds, these stay.

    See mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html; with another C library nothing happens.
    """
    libc = _glibc()
    if libc is not None and not any(name in os.environ for name in _ASKED_FOR):
        libc.mallopt(_MMAP_THRESHOLD, _OF_ITS_OWN)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def prepare_training() -> None:
    """Let PyTorch ask for pages of 2 MiB for its tensors on a CPU, and for segments that grow on a GPU.

    Here and in what is started from here; to be called before the first tensor is made. Where the environment says
    otherwise, that stays; where the kernel has no such pages to give, it gives small ones. For the segments see
    https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # c10/core/impl/alloc_cpu.cpp
    if not any(name in os.environ for name in _GPU_ASKED_FOR):
        os.environ[_GPU_SETTINGS] = "expandable_segments:True"


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
