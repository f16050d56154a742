"""Start the helpers of `zerovl evaluate` before torch is imported (`zerovl.distributed.helper_processes`)."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from zerovl import own_gpus
from zerovl.distributed.helper_processes import Helpers, started

__all__ = ["MODULE", "Helpers", "early_helpers", "usable_cores"]

MODULE = "zerovl.evaluation.job"


def early_helpers(asked: int) -> AbstractContextManager[Helpers | None]:
    """Return the helpers of `machine.ranks`, running inside the block; None where there are none.

    On GPUs too: how many there are to use is asked of torch there.
    """
    ranks = usable_cores(asked)
    return nullcontext() if ranks == 1 or own_gpus.count_up_to(1) else started(ranks, MODULE)


def usable_cores(asked: int) -> int:
    """Return how many ranks work on a CPU: no more than there are cores."""
    return min(max(1, asked), os.cpu_count() or 1)
