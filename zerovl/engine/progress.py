"""What a run shows while it trains: one progress bar, and lines above it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from zerovl import text_format
from zerovl.distributed.ranks import Ranks
from zerovl.log import logger
from zerovl.memory import peak_memory


class Progress:
    """A bar on rank 0 with loss, learning rate, pairs/s, memory and time left; nothing on other ranks.

    `data` is the share of the steps' time that went by waiting for batches, the first one of this process left out.
    """

    def __init__(self, ranks: Ranks, steps: int, start_step: int, batch_size: int) -> None:
        self._device = ranks.device
        self._batch_size = batch_size
        self._steps, self._waiting, self._time = 0, 0.0, 0.0
        self.bar = tqdm(
            total=steps,
            initial=start_step,
            desc="train",
            unit="step",
            file=sys.stderr,
            disable=not ranks.is_first,
            mininterval=1.0,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def step(self, loss: float, lr: float, seconds: float, data_seconds: float) -> float:
        """Count one step that took so long, the wait for its batch included; returns its pairs per second."""
        rate = self._batch_size / seconds
        if self._steps:  # workers start in the first one
            self._waiting += data_seconds
            self._time += seconds
        self._steps += 1
        fields = {"loss": f"{loss:.3f}", "lr": f"{lr:.1e}", "pairs/s": f"{rate:.0f}"}
        if self._time:
            fields["data"] = f"{min(1.0, self._waiting / self._time):.0%}"
        fields["mem"] = text_format.size(peak_memory(self._device)).replace(" ", "")
        self.bar.set_postfix(fields, refresh=False)
        self.bar.update()
        return rate

    def say(self, text: str) -> None:
        """Show a line above the bar."""
        logger().info(text)
