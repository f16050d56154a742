"""Start the helpers of `zerovl evaluate` before torch is imported (`zerovl.distributed.helper_processes`)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from zerovl import cores, gpu_names
from zerovl.distributed.helper_processes import Helpers, started

__all__ = ["MODULE", "Helpers", "early_helpers", "usable_cores"]

MODULE = "zerovl.evaluation.job"


def early_helpers(asked: int) -> AbstractContextManager[Helpers | None]:
    """Return the helpers of `machine.ranks`, running inside the block; None where there are none.

    None on GPUs too, and where torch might find one: how many ranks work there, torch alone says.
    """
    ranks = usable_cores(asked)
    return nullcontext() if ranks == 1 or gpu_names.torch_may_find_one() else started(ranks, MODULE)


def usable_cores(asked: int) -> int:
    """Return how many ranks work on a CPU: no more than there are cores."""
    return min(max(1, asked), cores.core_count())
