"""Which source each pair of a step comes from: a pure function of (seed, step), also where pairs are not known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zerovl.data.batches.randomness import keys64, uniform
from zerovl.data.batches.sampling import MIXED


@dataclass(frozen=True)
class StreamSchedule:
    """The steps of a run over streamed sources of so many pairs a pass.

    Debiased, it draws the sources that `zerovl.data.batches.sampling.DebiasedSampler` draws for the same sizes.
    """

    sizes: dict[str, int]  # sorted by name
    batch_size: int
    steps: int
    seed: int
    debiased: bool

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, sorted."""
        return tuple(self.sizes)

    def name(self, step: int) -> str:
        """Return the source of a step's batch, `MIXED` where each pair has its own."""
        if not self.debiased:
            return MIXED
        (place,) = self._drawn(np.array([step], dtype=np.uint64), "source of a step")
        return self.sources[int(place)]

    def of_pairs(self, step: int, positions: range) -> list[str]:
        """Return the sources of the pairs at some positions of the global batch."""
        if self.debiased:
            return [self.name(step)] * len(positions)
        counters = np.arange(positions.start, positions.stop, dtype=np.uint64) + np.uint64(step * self.batch_size)
        return [self.sources[int(place)] for place in self._drawn(counters, "source of a pair")]

    def _drawn(self, counters: npt.NDArray[np.uint64], what: str) -> npt.NDArray[np.intp]:
        sizes = np.array(list(self.sizes.values()), dtype=np.int64)  # (sources,)
        bounds = np.cumsum(sizes) / sizes.sum()
        draws = uniform(counters + np.uint64(keys64(1, self.seed, what)[0]))
        return np.searchsorted(bounds[:-1], draws, side="right")
