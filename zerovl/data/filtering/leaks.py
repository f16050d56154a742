"""Pictures of the valid splits that stand in training too: training loses them.

The valid pictures are held in memory, some 150 bytes each; training passes by in batches.

Shapes: V valid pictures, n training pictures of a batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zerovl.data.filtering.fates import SAME_BYTES, Fates
from zerovl.data.filtering.near_pairs import ALL_BITS, Words, masked, parts_of
from zerovl.data.filtering.usable_rows import Numbers, UsableRows

_PAIRS = 1 << 21  # hashes compared at once
_NUMBER_BITS = 48
_NONE = np.iinfo(np.int64).max


def leave_out_leaks(rows: UsableRows, fates: Fates, distance: int | None) -> None:
    """Leave out training pictures with the bytes of a valid one, or within `distance` bits of its perceptual hash."""
    digests, hashes, numbers = _valid_pictures(rows)
    if not len(numbers):
        return
    near = None if distance is None else ValidHashes(hashes, numbers, distance)
    for own, batch in rows.batches(["sha256", "phash"], "train"):
        twins = np.full(len(own), -1, np.int64)
        equal = pc.index_in(batch.column("sha256"), value_set=digests)
        found = np.flatnonzero(equal.is_valid().to_numpy(zero_copy_only=False))
        twins[found] = numbers[equal.drop_null().to_numpy(zero_copy_only=False)]
        apart = np.full(len(own), SAME_BYTES, np.uint8)
        if near:
            rest = np.flatnonzero(twins < 0)
            theirs = batch.column("phash").to_numpy(zero_copy_only=False)[rest]
            twins[rest], apart[rest] = near.nearest(theirs)
        leaked = np.flatnonzero(twins >= 0)
        fates.leave_out("leaks", own[leaked], twins[leaked], apart[leaked])


def _valid_pictures(rows: UsableRows) -> tuple[pa.Array, Words, Numbers]:
    """Digests, perceptual hashes and numbers, (V,) each."""
    digests, hashes, numbers = [pa.array([], pa.string())], [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for own, batch in rows.batches(["sha256", "phash"], "valid"):
        digests.append(batch.column("sha256"))
        hashes.append(batch.column("phash").to_numpy(zero_copy_only=False))
        numbers.append(own)
    return pa.concat_arrays(digests), np.concatenate(hashes), np.concatenate(numbers)


class ValidHashes:
    """Finds of any hash whether one of a valid picture is near: those that agree in a part of the bits are compared."""

    def __init__(self, hashes: Words, numbers: Numbers, distance: int) -> None:
        """`hashes` and `numbers` (V,): all valid pictures."""
        self._distance = distance
        self._hashes, first = np.unique(hashes, return_index=True)  # (U,)
        self._numbers = numbers[first]
        self._parts = []
        for bits in parts_of(ALL_BITS, distance):
            values = masked(self._hashes, bits)
            order = np.argsort(values, kind="stable")
            self._parts.append((bits, values[order], order))

    def nearest(self, hashes: Words) -> tuple[Numbers, npt.NDArray[np.uint8]]:
        """Return the number of the nearest valid picture, -1 where none is near, and the bits between: (n,) each."""
        best = np.full(len(hashes), _NONE)  # bits between, then the number: of equally near ones the first
        for bits, values, order in self._parts:
            asked = masked(hashes, bits)
            low = np.searchsorted(values, asked, "left")
            counts = np.searchsorted(values, asked, "right") - low
            open_ = np.flatnonzero(counts)
            while len(open_):
                total = np.cumsum(counts[open_])
                take = max(1, int(np.searchsorted(total, _PAIRS, "right")))
                now, open_ = open_[:take], open_[take:]
                number = counts[now]
                ours = np.repeat(now, number)  # (p,)
                within = np.arange(len(ours)) - np.repeat(np.cumsum(number) - number, number)
                theirs = order[np.repeat(low[now], number) + within]  # (p,)
                apart = np.bitwise_count(hashes[ours] ^ self._hashes[theirs])
                close = np.flatnonzero(apart <= self._distance)
                found = (apart[close].astype(np.int64) << _NUMBER_BITS) | self._numbers[theirs[close]]
                np.minimum.at(best, ours[close], found)
        near = best < _NONE
        numbers = np.where(near, best & ((1 << _NUMBER_BITS) - 1), -1)
        return numbers, np.where(near, best >> _NUMBER_BITS, SAME_BYTES).astype(np.uint8)
