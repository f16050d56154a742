"""Equal and nearly equal rows among all rows, in bounded memory.

Equality is found bucket by bucket (`bucket_files`). Nearness (`NearIndex`): two hashes that differ in at most d of 64
bits agree in at least one of d + 1 bands. Memory: 24 bytes an evaluation picture. Time grows with
train x valid / 2^(64 / (d + 1)) for hashes that fill their space: next to linear for d <= 2, the default. From d = 5 on
the bands are too short to sift anything, and every pair is compared: train x valid, some 10^8 pairs a second and core.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zerovl.data.bucket_files import Places, Words
from zerovl.data.validation.tables import table_of

Mask = npt.NDArray[np.bool_]

_PAIRS = 1 << 21  # hash pairs compared at once
_MIN_BAND_BITS = 12


class Repeats:
    """Counts the rows that repeat an earlier one, with examples (place, place of the first one)."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.examples: list[tuple[int, int]] = []
        self._limit = limit

    def add(self, group: npt.NDArray[np.int64], place: Places) -> None:
        """Count one bucket, as `BucketFiles.groups` gives it: (n,) each."""
        repeated = np.flatnonzero(group[1:] == group[:-1]) + 1
        self.count += len(repeated)
        for index in repeated[: max(0, self._limit - len(self.examples))]:
            first = np.searchsorted(group, group[index])
            self.examples.append((int(place[index]), int(place[first])))


class EqualRows:
    """Counts, table by table, the values that another row of the same table has, and the pairs of such rows."""

    def __init__(self, tables: int) -> None:
        self.values = np.zeros(tables, np.int64)  # a value that a row has twice counts once
        self.pairs = np.zeros(tables, np.int64)  # unordered; n equal rows make n (n - 1) / 2

    def add(self, group: npt.NDArray[np.int64], place: Places) -> None:
        """Count one bucket, as `BucketFiles.groups` gives it: (n,) each."""
        table = table_of(place)
        is_new_group = np.append(True, group[1:] != group[:-1])
        kept = is_new_group | np.append(True, place[1:] != place[:-1])
        starts = np.flatnonzero((is_new_group | np.append(True, table[1:] != table[:-1]))[kept])
        ends = np.append(starts[1:], np.count_nonzero(kept))
        sizes: Places = ends - starts  # (c,) rows of a table with the same value
        its_table = table[kept][starts]
        np.add.at(self.values, its_table, np.where(sizes > 1, sizes, 0))
        np.add.at(self.pairs, its_table, sizes * (sizes - 1) // 2)

    def rows_a_value(self, table: int) -> float:
        """Return how many rows of a table have a value that several have, on the average of such rows."""
        return 1.0 + 2.0 * int(self.pairs[table]) / int(self.values[table])


class Leaks:
    """Counts the evaluation rows whose value also stands in training, with examples (place, place in train)."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.examples: list[tuple[int, int]] = []
        self._limit = limit

    def add(self, group: npt.NDArray[np.int64], place: Places, in_train: Mask) -> None:
        """Count one bucket; all three are of shape (n,)."""
        first_train = np.full(int(group[-1]) + 1, -1, np.int64)
        trained = np.flatnonzero(in_train)[::-1]
        first_train[group[trained]] = place[trained]  # the last write wins, and that is the first place
        leaked = np.flatnonzero(~in_train & (first_train[group] >= 0))
        self.count += len(leaked)
        for index in leaked[: max(0, self._limit - len(self.examples))]:
            self.examples.append((int(place[index]), int(first_train[group[index]])))


class NearIndex:
    """Holds evaluation hashes, asked chunk by chunk for their neighbours among training hashes."""

    def __init__(self, hashes: Words, places: Places, distance: int) -> None:
        """`hashes` and `places` (V,): all evaluation pictures that have a perceptual hash."""
        self._hashes, first, self._inverse = np.unique(hashes, return_index=True, return_inverse=True)  # (U,)
        self._places = places[first]
        self._distance = distance
        self._partner = np.full(len(self._hashes), -1, np.int64)  # (U,) place of a near training picture
        self._between = np.zeros(len(self._hashes), np.uint8)  # (U,) bits that differ from it
        edges = np.linspace(0, 64, distance + 2).astype(int)
        widths = np.diff(edges)
        self._bands = [(int(start), int(width)) for start, width in zip(edges, widths, strict=False)]
        self._banded = int(widths.min()) >= _MIN_BAND_BITS
        self._refresh()

    def _refresh(self) -> None:
        """Look only for those that have no neighbour yet; clusters of alike pictures drop out early."""
        self._open = np.flatnonzero(self._partner < 0)
        self._sorted: list[tuple[Words, npt.NDArray[np.int64]]] = []
        if self._banded:
            for start, width in self._bands:
                values = _band(self._hashes[self._open], start, width)
                order = np.argsort(values, kind="stable")
                self._sorted.append((values[order], self._open[order]))

    def look(self, hashes: Words, places: Places) -> None:
        """Compare with training `hashes`, `places` (n,)."""
        hashes, first = np.unique(hashes, return_index=True)
        places = places[first]
        if self._banded:
            for (start, width), (values, members) in zip(self._bands, self._sorted, strict=True):
                self._look_in_band(hashes, places, _band(hashes, start, width), values, members)
        else:
            self._look_at_all(hashes, places)
        if np.count_nonzero(self._partner[self._open] >= 0) * 4 > len(self._open):
            self._refresh()

    def _look_in_band(
        self, hashes: Words, places: Places, asked: Words, values: Words, members: npt.NDArray[np.int64]
    ) -> None:
        low = np.searchsorted(values, asked, "left")
        counts = np.searchsorted(values, asked, "right") - low  # (n,) members with the same band
        hit = np.flatnonzero(counts)
        while len(hit):
            total = np.cumsum(counts[hit])
            # At least one; the members of a single band value are at most the evaluation pictures.
            take = max(1, int(np.searchsorted(total, _PAIRS, "right")))
            now, hit = hit[:take], hit[take:]
            number = counts[now]
            ours = np.repeat(now, number)  # (p,) into hashes
            within = np.arange(len(ours)) - np.repeat(np.cumsum(number) - number, number)
            theirs = members[np.repeat(low[now], number) + within]  # (p,) into self._hashes
            self._mark(theirs, hashes[ours], places[ours])

    def _look_at_all(self, hashes: Words, places: Places) -> None:
        rows = max(1, _PAIRS // max(1, len(self._open)))
        for start in range(0, len(hashes), rows):
            self._open = self._open[self._partner[self._open] < 0]
            block = hashes[start : start + rows]
            apart = np.bitwise_count(block[:, None] ^ self._hashes[self._open][None, :])  # (rows, U)
            ours, theirs = np.nonzero(apart <= self._distance)
            self._mark(self._open[theirs], block[ours], places[start : start + rows][ours])

    def _mark(self, theirs: npt.NDArray[np.int64], hashes: Words, places: Places) -> None:
        apart = np.bitwise_count(self._hashes[theirs] ^ hashes)
        near = np.flatnonzero((apart <= self._distance) & (self._partner[theirs] < 0))[::-1]
        self._partner[theirs[near]] = places[near]
        self._between[theirs[near]] = apart[near]

    @property
    def count(self) -> int:
        """Number of evaluation pictures (not of distinct hashes) with a training picture nearby."""
        return int(np.count_nonzero(self._partner[self._inverse] >= 0))

    def examples(self, limit: int) -> list[tuple[int, int, int]]:
        """Return (place, place in train, bits that differ), in the order of the places."""
        found = np.flatnonzero(self._partner >= 0)
        found = found[np.argsort(self._places[found], kind="stable")][:limit]
        return [(int(self._places[i]), int(self._partner[i]), int(self._between[i])) for i in found]


def _band(hashes: Words, start: int, width: int) -> Words:
    if width == 64:
        return hashes
    banded: Words = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
    return banded
