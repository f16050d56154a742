"""A loss that is not finite ends a run; under fp16 only where it stays so, as the loss scaler skips such steps."""

from __future__ import annotations

import math
from collections.abc import Callable

from zerovl.engine.checkpoints import Checkpoints
from zerovl.engine.step_errors import Origin, not_finite

MOST_SKIPPED = 16  # steps in a row: each halves the scale, which starts at 2^16


class LossWatch:
    """Sees the loss of each step, in their order; all ranks see the same."""

    def __init__(self, most: int, checkpoints: Checkpoints) -> None:
        """`most` steps in a row may be skipped; 0 where nothing skips a step whose loss is not finite."""
        self._most = most
        self._checkpoints = checkpoints
        self._in_a_row = 0

    def is_finite(self, origin: Origin, loss: float, say: Callable[[str], None]) -> bool:
        """Return whether the step counts, or was skipped; raises `ZeroVLError` where too many were in a row."""
        if math.isfinite(loss):
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        if self._in_a_row > self._most:
            raise not_finite(origin, loss, self._checkpoints)
        if self._in_a_row == 1:
            say(
                f"loss is {loss} in step {origin.step} (source {origin.source}): fp16 overflowed. The step is skipped "
                f"and the loss scale halved; after {self._most} such steps in a row training ends"
            )
        return False
