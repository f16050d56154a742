"""The order of an epoch: which pair, or which caption, comes at which place, computed and not stored.

Legend: `B` global batch, `n` what an epoch visits.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from zerovl.data.batches.caption_rows import CaptionRows, OneEach
from zerovl.data.batches.permutation import Rows
from zerovl.data.batches.shuffle import LapShuffle, anywhere


class Stream(Protocol):
    """Gives the k-th batch of what is visited again and again."""

    def batch(self, k: int) -> Rows:
        """Return (B,) distinct rows."""
        ...


class EpochStream:
    """Visits n pairs endlessly in batches of B <= n; each epoch has a fresh permutation, by `shuffle`.

    Position p of the stream belongs to epoch p // n, and batch k is positions [kB, (k+1)B). Where a
    batch straddles two epochs, the new epoch could repeat a pair that the old one just gave. Such
    pairs are deferred: each changes places with the next pair of the same epoch that does not repeat,
    which lies among the first B of the epoch. So every pair comes exactly once an epoch, and none
    twice in a batch.

    A batch costs O(B). Only where n < 2B can the end of an epoch lie within its first B positions;
    then its repair needs that of the epoch before, back to the last one whose end is clear of it.

    A lap, in names below, is what gets a permutation of its own: an epoch here, a part of one in `CaptionStream`.
    """

    def __init__(self, n: int, batch_size: int, *key: int | str, shuffle: LapShuffle = anywhere) -> None:
        self.n = n
        self.batch_size = batch_size
        self._key = key
        self._shuffle = shuffle
        self._last_head: tuple[int, Rows] | None = None  # saves the walk back where n < 2B

    def batch(self, k: int) -> Rows:
        """Return (B,) distinct rows of the k-th batch."""
        lap, start = self._place(k * self.batch_size)
        stop, size = start + self.batch_size, self._size(lap)
        if stop <= size:
            return self._order(lap, start, stop)
        return np.concatenate([self._order(lap, start, size), self._order(lap + 1, 0, stop - size)])

    def _place(self, position: int) -> tuple[int, int]:
        """Lap of a position of the stream, and the position in it."""
        return divmod(position, self.n)

    def _first(self, lap: int) -> int:
        """Position of the stream with which a lap begins."""
        return lap * self.n

    def _size(self, _lap: int) -> int:
        """Positions of a lap, at least B."""
        return self.n

    def _permuted(self, lap: int, start: int, stop: int) -> Rows:
        """Rows at positions [start, stop) of a lap before any is deferred."""
        return self._shuffle(self.n, 1, 0, *self._key, lap)(np.arange(start, stop))

    def _pairs(self, rows: Rows) -> Rows:
        """The pair of each row: none may come twice in a batch."""
        return rows

    def _order(self, lap: int, start: int, stop: int) -> Rows:
        """Rows at positions [start, stop) of a lap."""
        if start >= self.batch_size:
            return self._permuted(lap, start, stop)
        head = self._head(lap)
        return np.concatenate([head[start:stop], self._permuted(lap, max(start, head.size), max(stop, head.size))])

    def _carried(self, lap: int) -> int:
        """Pairs of the lap before that are in the batch with which `lap` begins."""
        return self._first(lap) % self.batch_size

    def _head(self, lap: int) -> Rows:
        """The first B rows of a lap, after deferral."""
        known, head = self._last_head or (-1, np.empty(0, np.int64))
        first = lap
        while first != known and self._carried(first) > self._size(first - 1) - self.batch_size:
            first -= 1  # ends at the latest at lap 0, which carries nothing
        for current in range(first, lap + 1):
            if current != known:
                head = self._deferred(current, head)
        self._last_head = lap, head
        return head

    def _deferred(self, lap: int, previous_head: Rows) -> Rows:
        head = self._permuted(lap, 0, self.batch_size)  # (B,)
        carried = self._carried(lap)
        if not carried:
            return head
        size = self._size(lap - 1)
        before = self._permuted(lap - 1, size - carried, size)  # (carried,)
        overlap = self.batch_size - (size - carried)
        if overlap > 0:
            before[:overlap] = previous_head[-overlap:]
        repeats = np.isin(self._pairs(head), self._pairs(before))  # (B,)
        shared = self.batch_size - carried  # positions of this lap in the straddling batch
        wrong = np.flatnonzero(repeats[:shared])
        # Enough of these exist: at most `carried` of the B rows repeat, and `carried` positions follow. Only where a
        # lap has a pair twice (see `CaptionStream`) may they run out.
        right = shared + np.flatnonzero(~repeats[shared:])[: wrong.size]
        wrong = wrong[: right.size]
        head[wrong], head[right] = head[right], head[wrong]
        return head


class CaptionStream(EpochStream):
    """Visits the captions of pairs endlessly, each once an epoch and no two of a pair in a batch.

    An epoch of n captions is run in laps, as many as a pair has captions at most: caption q belongs to lap
    q % laps, so the captions of a pair, which follow one another, are in different ones. Each lap has a fresh
    permutation, and where a batch straddles two laps, pairs are deferred as between epochs. A lap needs B captions:
    where a pair has more captions than an epoch has batches, there are fewer laps, and two of its captions may meet.
    """

    def __init__(
        self, captions: CaptionRows | OneEach, batch_size: int, *key: int | str, shuffle: LapShuffle = anywhere
    ) -> None:
        super().__init__(len(captions), batch_size, *key, shuffle=shuffle)
        self._captions = captions
        self._laps = min(captions.most, self.n // batch_size)
        sizes = [len(range(lap, self.n, self._laps)) for lap in range(self._laps)]
        self._firsts = [sum(sizes[:lap]) for lap in range(self._laps)]
        self._sizes = sizes

    def _place(self, position: int) -> tuple[int, int]:
        epoch, rest = divmod(position, self.n)
        lap = int(np.searchsorted(self._firsts, rest, side="right")) - 1
        return epoch * self._laps + lap, rest - self._firsts[lap]

    def _first(self, lap: int) -> int:
        epoch, part = divmod(lap, self._laps)
        return epoch * self.n + self._firsts[part]

    def _size(self, lap: int) -> int:
        return self._sizes[lap % self._laps]

    def _permuted(self, lap: int, start: int, stop: int) -> Rows:
        order = self._shuffle(self._size(lap), self._laps, lap % self._laps, *self._key, lap)
        return self._members(lap, order(np.arange(start, stop)))

    def _members(self, lap: int, numbers: Rows) -> Rows:
        """Captions of a lap by their number in it."""
        return numbers * self._laps + lap % self._laps

    def _pairs(self, rows: Rows) -> Rows:
        return self._captions.pairs_of(rows)


class InOrder:
    """Visits n pairs one after the other, again from the start at the end."""

    def __init__(self, n: int, batch_size: int) -> None:
        self.n = n
        self.batch_size = batch_size

    def batch(self, k: int) -> Rows:
        """Return (B,) distinct rows of the k-th batch."""
        return (k * self.batch_size + np.arange(self.batch_size, dtype=np.int64)) % self.n


class CaptionsInOrder(CaptionStream):
    """Visits captions lap by lap, each lap in the order of the pairs."""

    def _permuted(self, lap: int, start: int, stop: int) -> Rows:
        return self._members(lap, np.arange(start, stop))
