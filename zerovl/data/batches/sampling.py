"""Which pairs make the global batch of a step: a pure function of (seed, step), with no state.

Legend: `B` global batch, `W` world size, `n` pairs of a source (or of all sources together).

A batch holds no pair twice: the second copy would be a false negative of the first in the
contrastive loss. Hence no sampler takes a batch that is larger than what it draws from.

Memory does not grow with the number of pairs: the order of an epoch is a keyed permutation of
range(n) that is computed, not stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zerovl.data.batches.randomness import UInt64s, keys64, uniform
from zerovl.errors import ZeroVLError

MIXED = "mixed"

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GlobalBatch:
    """The pairs of one step, or a rank's slice of them."""

    step: int
    source: str  # MIXED where the pairs come from several sources
    sources: tuple[str, ...]  # all of the sampler's, sorted
    source_ids: npt.NDArray[np.uint16]  # (B,) into `sources`
    rows: Rows  # (B,) into the source's index

    def slice(self, rank: int, world_size: int) -> GlobalBatch:
        """Return the contiguous part of `rank`, B / W pairs; raises `ZeroVLError` where W does not divide B."""
        if self.rows.size % world_size:
            raise ZeroVLError(
                f"train.batch_size {self.rows.size} is not a multiple of the world size {world_size}; "
                "change it or the number of ranks"
            )
        share = self.rows.size // world_size
        part = slice(rank * share, (rank + 1) * share)
        return GlobalBatch(self.step, self.source, self.sources, self.source_ids[part], self.rows[part])


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


class Permutation:
    """Permutes range(n), n < 2**62, pseudo-randomly, computed position by position.

    An alternating Feistel network over a grid of a x b cells, a = ceil(sqrt(n)), b = ceil(n / a),
    with cycle walking for the fewer than a cells that lie outside range(n). Source: Black, Rogaway,
    "Ciphers with arbitrary finite domains", CT-RSA 2002 (their generalised Feistel cipher).
    """

    ROUNDS = 8

    def __init__(self, n: int, *key: int | str) -> None:
        self.n = n
        a = isqrt(n - 1) + 1
        self._sides = np.uint64(a), np.uint64(-(-n // a))
        self._keys = [np.uint64(value) for value in keys64(self.ROUNDS, *key)]

    def __call__(self, positions: npt.NDArray[np.integer]) -> Rows:
        """(k,) positions in range(n) -> (k,) values in range(n)."""
        values = self._encrypt(positions.astype(np.uint64))
        outside = np.flatnonzero(values >= np.uint64(self.n))
        while outside.size:
            values[outside] = self._encrypt(values[outside])
            outside = outside[values[outside] >= np.uint64(self.n)]
        return values.astype(np.int64)

    def _encrypt(self, values: UInt64s) -> UInt64s:
        a, b = self._sides
        left = values // b
        right = values - left * b
        for i in range(0, self.ROUNDS, 2):
            left = _add_modulo(left, _scatter(right, self._keys[i], a), a)
            right = _add_modulo(right, _scatter(left, self._keys[i + 1], b), b)
        return left * b + right


def _scatter(half: UInt64s, key: np.uint64, modulus: np.uint64) -> UInt64s:
    """The round function: a keyed hash of `half` into range(modulus), modulus < 2**32."""
    mixed = half + key
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed >>= np.uint64(32)
    mixed *= modulus  # multiply and shift: a range reduction without a division
    mixed >>= np.uint64(32)
    return mixed


def _add_modulo(left: UInt64s, right: UInt64s, modulus: np.uint64) -> UInt64s:
    total = left + right
    total -= (total >= modulus) * modulus
    return total


class EpochStream:
    """Visits n pairs endlessly in batches of B <= n; each epoch has a fresh permutation.

    Position p of the stream belongs to epoch p // n, and batch k is positions [kB, (k+1)B). Where a
    batch straddles two epochs, the new epoch could repeat a pair that the old one just gave. Such
    pairs are deferred: each changes places with the next pair of the same epoch that does not repeat,
    which lies among the first B of the epoch. So every pair comes exactly once an epoch, and none
    twice in a batch.

    A batch costs O(B). Only where n < 2B can the end of an epoch lie within its first B positions;
    then its repair needs that of the epoch before, back to the last one whose end is clear of it.
    """

    def __init__(self, n: int, batch_size: int, *key: int | str) -> None:
        self.n = n
        self.batch_size = batch_size
        self._key = key
        self._last_head: tuple[int, Rows] | None = None  # saves the walk back where n < 2B

    def batch(self, k: int) -> Rows:
        """Return (B,) distinct rows of the k-th batch."""
        epoch, start = divmod(k * self.batch_size, self.n)
        stop = start + self.batch_size
        if stop <= self.n:
            return self._order(epoch, start, stop)
        return np.concatenate([self._order(epoch, start, self.n), self._order(epoch + 1, 0, stop - self.n)])

    def _order(self, epoch: int, start: int, stop: int) -> Rows:
        """Rows at positions [start, stop) of an epoch."""
        if start >= self.batch_size:
            return self._permuted(epoch, start, stop)
        head = self._head(epoch)
        return np.concatenate([head[start:stop], self._permuted(epoch, max(start, head.size), max(stop, head.size))])

    def _permuted(self, epoch: int, start: int, stop: int) -> Rows:
        return Permutation(self.n, *self._key, epoch)(np.arange(start, stop))

    def _carried(self, epoch: int) -> int:
        """Pairs of the epoch before that are in the batch with which `epoch` begins."""
        return epoch * self.n % self.batch_size

    def _head(self, epoch: int) -> Rows:
        """The first B rows of an epoch, after deferral."""
        known, head = self._last_head or (-1, np.empty(0, np.int64))
        first = epoch
        while first != known and self._carried(first) > self.n - self.batch_size:
            first -= 1  # ends at the latest at epoch 0, which carries nothing
        for current in range(first, epoch + 1):
            if current != known:
                head = self._deferred(current, head)
        self._last_head = epoch, head
        return head

    def _deferred(self, epoch: int, previous_head: Rows) -> Rows:
        head = self._permuted(epoch, 0, self.batch_size)  # (B,)
        carried = self._carried(epoch)
        if not carried:
            return head
        before = self._permuted(epoch - 1, self.n - carried, self.n)  # (carried,)
        overlap = self.batch_size - (self.n - carried)
        if overlap > 0:
            before[:overlap] = previous_head[-overlap:]
        repeats = np.isin(head, before, assume_unique=True)  # (B,)
        shared = self.batch_size - carried  # positions of this epoch in the straddling batch
        wrong = np.flatnonzero(repeats[:shared])
        # Enough of these exist: at most `carried` of the B rows repeat, and `carried` positions follow.
        right = shared + np.flatnonzero(~repeats[shared:])[: wrong.size]
        head[wrong], head[right] = head[right], head[wrong]
        return head


class _SamplerBase:
    def __init__(self, sizes: dict[str, int], batch_size: int, steps: int, seed: int) -> None:
        self.sources = tuple(sorted(sizes))
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self._sizes = np.array([sizes[name] for name in self.sources], dtype=np.int64)  # (sources,)
        self._total = int(self._sizes.sum())
        self._starts = np.cumsum(self._sizes) - self._sizes  # (sources,) of each in the row of all

    def _check_step(self, step: int) -> None:
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside range({self.steps})")

    def _check_total(self) -> None:
        if self._total < self.batch_size:
            raise ZeroVLError(
                f"{len(self.sources)} sources have {self._total} training pairs together, fewer than train.batch_size "
                f"{self.batch_size}; a batch would repeat pairs, and these would be false negatives. "
                f"Set train.batch_size to {self._total} or less, or add pairs"
            )

    def _located(self, step: int, positions: Rows, *, name_single_source: bool) -> GlobalBatch:
        """Positions in the row of all sources, (B,), as (source, row)."""
        ids = np.searchsorted(self._starts, positions, side="right") - 1  # (B,)
        single = name_single_source and bool((ids == ids[0]).all())
        source = self.sources[int(ids[0])] if single else MIXED
        return GlobalBatch(step, source, self.sources, ids.astype(np.uint16), positions - self._starts[ids])


class DebiasedSampler(_SamplerBase):
    """Takes each global batch from one source, drawn with probability proportional to its pairs.

    The k-th batch of a source takes the k-th batch of that source's stream of epochs.
    """

    def __init__(self, sizes: dict[str, int], batch_size: int, steps: int, seed: int) -> None:
        super().__init__(sizes, batch_size, steps, seed)
        self._check_sources()
        bounds = np.cumsum(self._sizes) / self._total  # (sources,)
        counters = np.arange(steps, dtype=np.uint64) + np.uint64(keys64(1, seed, "source of a step")[0])
        draws = np.searchsorted(bounds[:-1], uniform(counters), side="right")
        self._draws = draws.astype(np.uint16)  # (steps,) source of each step
        self._visits = np.empty(steps, dtype=np.int64)  # (steps,) earlier batches of that source
        for i in range(len(self.sources)):
            its_steps = np.flatnonzero(self._draws == i)
            self._visits[its_steps] = np.arange(its_steps.size)
        self._streams = [
            EpochStream(int(size), batch_size, seed, name) for name, size in zip(self.sources, self._sizes, strict=True)
        ]

    def batch(self, step: int) -> GlobalBatch:
        """Return the global batch of a step."""
        self._check_step(step)
        source_id = int(self._draws[step])
        rows = self._streams[source_id].batch(int(self._visits[step]))
        ids = np.full(self.batch_size, source_id, dtype=np.uint16)
        return GlobalBatch(step, self.sources[source_id], self.sources, ids, rows)

    def _check_sources(self) -> None:
        small = [(name, int(n)) for name, n in zip(self.sources, self._sizes, strict=True) if n < self.batch_size]
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

    def __init__(self, sizes: dict[str, int], batch_size: int, steps: int, seed: int) -> None:
        super().__init__(sizes, batch_size, steps, seed)
        self._check_total()
        self._stream = EpochStream(self._total, batch_size, seed, "all sources")

    def batch(self, step: int) -> GlobalBatch:
        """Return the global batch of a step."""
        self._check_step(step)
        return self._located(step, self._stream.batch(step), name_single_source=False)


class SequentialSampler(_SamplerBase):
    """Takes all sources one after the other, in the order of the shards, again from the start at the end."""

    def __init__(self, sizes: dict[str, int], batch_size: int, steps: int, seed: int) -> None:
        super().__init__(sizes, batch_size, steps, seed)
        self._check_total()

    def batch(self, step: int) -> GlobalBatch:
        """Return the global batch of a step."""
        self._check_step(step)
        positions = (step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)) % self._total
        return self._located(step, positions, name_single_source=True)


_KINDS: dict[str, type[DebiasedSampler] | type[ShuffledSampler] | type[SequentialSampler]] = {
    "debiased": DebiasedSampler,
    "shuffled": ShuffledSampler,
    "sequential": SequentialSampler,
}


def make_sampler(kind: str, sizes: dict[str, int], batch_size: int, epochs: float, seed: int) -> Sampler:
    """Return the sampler of `train.sampling` over sources of `sizes` pairs, max(1, round(epochs n / B)) steps long.

    Raises `ZeroVLError` where a batch would have to repeat pairs, and for an unknown kind.
    """
    if kind not in _KINDS:
        raise ZeroVLError(f"train.sampling {kind!r}: unknown; set it to one of {', '.join(_KINDS)}")
    return _KINDS[kind](sizes, batch_size, count_steps(epochs, sum(sizes.values()), batch_size), seed)


def count_steps(epochs: float, pairs: int, batch_size: int) -> int:
    """Return the optimiser steps that so many passes over the pairs take, at least one."""
    return max(1, round(epochs * pairs / batch_size))
