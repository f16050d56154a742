"""The same bits from the same step on a GPU, where a run asks for it (`machine.deterministic`)."""

from __future__ import annotations

import os

import torch

from zerovl.params import MachineParams

# Of the two sizes that cuBLAS gives the same bits with, the one that does not slow it down:
# https://docs.nvidia.com/cuda/cublas/index.html#results-reproducibility
_WORKSPACE = ":4096:8"


def set_determinism(machine: MachineParams) -> None:
    """Have PyTorch take kernels that add in the same order each time; before the first product on a GPU.

    An operation that has no such kernel raises a `RuntimeError` with its name. On a CPU all that a training does is
    deterministic without it, on the same number of threads. Memory that was not written to is not filled: nothing here
    reads it.
    """
    if not machine.deterministic:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACE)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
