"""Which pairs make the global batch of a step: a pure function of (seed, step), with no state.

Legend: `B` global batch, `W` world size, `n` pairs of a source (or of all sources together).

A batch holds no pair twice: the second copy would be a false negative of the first in the
contrastive loss. Hence no sampler takes a batch that is larger than what it draws from.

Memory does not grow with the number of pairs: the order of an epoch is a keyed permutation of range(n) that is
computed, not stored (`epochs`); with `train.shuffle: blocks` it grows with the number of shards (`shuffle`). What an
epoch goes over, pairs or each caption of each, is in `visits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zerovl.data.batches.permutation import Rows
from zerovl.data.batches.randomness import keys64, uniform
from zerovl.data.batches.shuffle import shuffle_by
from zerovl.data.batches.visits import EachPair, Visits, visits_of
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.params import TrainParams

MIXED = "mixed"


@dataclass(frozen=True)
class GlobalBatch:
    """The pairs of one step, or a rank's slice of them."""

    step: int
    source: str  # MIXED where the pairs come from several sources
    sources: tuple[str, ...]  # all of the sampler's, sorted
    source_ids: npt.NDArray[np.uint16]  # (B,) into `sources`
    rows: Rows  # (B,) into the source's index
    captions: Rows | None = None  # (B,) which caption of each pair; None: one is drawn

    def slice(self, rank: int, world_size: int) -> GlobalBatch:
        """Return the contiguous part of `rank`, B / W pairs; raises `ZeroVLError` where W does not divide B."""
        if self.rows.size % world_size:
            raise ZeroVLError(
                f"train.batch_size {self.rows.size} is not a multiple of the world size {world_size}; "
                "change it or the number of ranks"
            )
        share = self.rows.size // world_size
        part = slice(rank * share, (rank + 1) * share)
        captions = None if self.captions is None else self.captions[part]
        return GlobalBatch(self.step, self.source, self.sources, self.source_ids[part], self.rows[part], captions)


class Sampler(Protocol):
    """Gives the global batch of each step in range(steps)."""

    @property
    def steps(self) -> int:
        """Number of global batches."""
        ...

    @property
    def batch_size(self) -> int:
        """Pairs of each global batch."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order of their ids."""
        ...

    def batch(self, step: int) -> GlobalBatch:
        """Return the global batch of a step."""
        ...


class _SamplerBase:
    def __init__(self, visits: Visits, batch_size: int, steps: int, seed: int) -> None:
        self.sources = tuple(sorted(visits.sizes))
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self._visits = visits
        self._sizes = np.array([visits.sizes[name] for name in self.sources], dtype=np.int64)  # (sources,)
        self._total = int(self._sizes.sum())
        self._starts = np.cumsum(self._sizes) - self._sizes  # (sources,) of each in the row of all

    def _check_step(self, step: int) -> None:
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside range({self.steps})")

    def _check_total(self) -> None:
        pairs = sum(self._visits.pairs.values())
        if pairs < self.batch_size:
            raise ZeroVLError(
                f"{len(self.sources)} sources have {pairs} training pairs together, fewer than train.batch_size "
                f"{self.batch_size}; a batch would repeat pairs, and these would be false negatives. "
                f"Set train.batch_size to {pairs} or less, or add pairs"
            )

    def _located(self, step: int, positions: Rows, *, name_single_source: bool) -> GlobalBatch:
        """Positions in the row of all sources, (B,), as (source, row)."""
        ids = np.searchsorted(self._starts, positions, side="right") - 1  # (B,)
        single = name_single_source and bool((ids == ids[0]).all())
        source = self.sources[int(ids[0])] if single else MIXED
        return self._global_batch(step, source, ids.astype(np.uint16), positions - self._starts[ids])

    def _global_batch(self, step: int, source: str, ids: npt.NDArray[np.uint16], visited: Rows) -> GlobalBatch:
        """What is visited of each source, (B,), as pairs with captions."""
        rows, captions = self._visits.located(self.sources, ids, visited)
        return GlobalBatch(step, source, self.sources, ids, rows, captions)


class DebiasedSampler(_SamplerBase):
    """Takes each global batch from one source, drawn with probability proportional to its pairs.

    The k-th batch of a source takes the k-th batch of that source's stream of epochs.
    """

    def __init__(self, visits: Visits, batch_size: int, steps: int, seed: int) -> None:
        super().__init__(visits, batch_size, steps, seed)
        self._check_sources()
        bounds = np.cumsum(self._sizes) / self._total  # (sources,)
        counters = np.arange(steps, dtype=np.uint64) + np.uint64(keys64(1, seed, "source of a step")[0])
        draws = np.searchsorted(bounds[:-1], uniform(counters), side="right")
        self._draws = draws.astype(np.uint16)  # (steps,) source of each step
        self._earlier = np.empty(steps, dtype=np.int64)  # (steps,) earlier batches of that source
        for i in range(len(self.sources)):
            its_steps = np.flatnonzero(self._draws == i)
            self._earlier[its_steps] = np.arange(its_steps.size)
        self._streams = [visits.stream((name,), batch_size, seed, name) for name in self.sources]

    def batch(self, step: int) -> GlobalBatch:
        """Return the global batch of a step."""
        self._check_step(step)
        source_id = int(self._draws[step])
        visited = self._streams[source_id].batch(int(self._earlier[step]))
        ids = np.full(self.batch_size, source_id, dtype=np.uint16)
        return self._global_batch(step, self.sources[source_id], ids, visited)

    def _check_sources(self) -> None:
        small = [(name, n) for name, n in sorted(self._visits.pairs.items()) if n < self.batch_size]
        if small or not self.sources:
            listed = ", ".join(f"{name} ({n} pairs)" for name, n in small) or "no source"
            smallest = min((n for _, n in small), default=0)
            raise ZeroVLError(
                f"train.sampling debiased: too few training pairs for train.batch_size {self.batch_size}: {listed}; "
                "a batch of one source would repeat pairs, and these would be false negatives. "
                f"Set train.batch_size to {smallest} or less, merge or leave out the source, "
                "or set train.sampling to shuffled"
            )


class ShuffledSampler(_SamplerBase):
    """Takes all sources as one, in a fresh order each epoch."""

    def __init__(self, visits: Visits, batch_size: int, steps: int, seed: int) -> None:
        super().__init__(visits, batch_size, steps, seed)
        self._check_total()
        self._stream = visits.stream(self.sources, batch_size, seed, "all sources")

    def batch(self, step: int) -> GlobalBatch:
        """Return the global batch of a step."""
        self._check_step(step)
        return self._located(step, self._stream.batch(step), name_single_source=False)


class SequentialSampler(_SamplerBase):
    """Takes all sources one after the other, in the order of the shards, again from the start at the end."""

    def __init__(self, visits: Visits, batch_size: int, steps: int, seed: int) -> None:
        super().__init__(visits, batch_size, steps, seed)
        self._check_total()
        self._stream = visits.in_order(self.sources, batch_size)

    def batch(self, step: int) -> GlobalBatch:
        """Return the global batch of a step."""
        self._check_step(step)
        return self._located(step, self._stream.batch(step), name_single_source=True)


_KINDS: dict[str, type[DebiasedSampler] | type[ShuffledSampler] | type[SequentialSampler]] = {
    "debiased": DebiasedSampler,
    "shuffled": ShuffledSampler,
    "sequential": SequentialSampler,
}


def training_sampler(train: TrainParams, manifest: Manifest) -> Sampler:
    """Return the sampler of `train` over the training pairs; raises `ZeroVLError` as `make_sampler` does."""
    visits = visits_of(train.epoch_of, manifest, shuffle_by(train.shuffle, train.block_shards, manifest))
    return _sampler(train.sampling, visits, train.batch_size, train.epochs, train.seed)


def make_sampler(kind: str, sizes: dict[str, int], batch_size: int, epochs: float, seed: int) -> Sampler:
    """Return the sampler of `train.sampling` over sources of `sizes` pairs, max(1, round(epochs n / B)) steps long.

    Raises `ZeroVLError` where a batch would have to repeat pairs, and for an unknown kind.
    """
    return _sampler(kind, EachPair(sizes), batch_size, epochs, seed)


def _sampler(kind: str, visits: Visits, batch_size: int, epochs: float, seed: int) -> Sampler:
    if kind not in _KINDS:
        raise ZeroVLError(f"train.sampling {kind!r}: unknown; set it to one of {', '.join(_KINDS)}")
    return _KINDS[kind](visits, batch_size, count_steps(epochs, sum(visits.sizes.values()), batch_size), seed)


def count_steps(epochs: float, visits: int, batch_size: int) -> int:
    """Return the optimiser steps that so many epochs take, each of so many visits; at least one."""
    return max(1, round(epochs * visits / batch_size))
