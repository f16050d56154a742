"""Start the helpers of the stage `evaluate` before the stage imports torch, which `stages/evaluate.py` does."""

from __future__ import annotations

from contextlib import AbstractContextManager

from zerovl.evaluation.early_helpers import Helpers, early_helpers
from zerovl.params import Params


def started_first(params: Params) -> AbstractContextManager[Helpers | None]:
    """Return the helpers of `machine.ranks` on a CPU, running inside the block."""
    return early_helpers(params.machine.ranks)
