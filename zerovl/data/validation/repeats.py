"""Equal and nearly equal rows among all rows, in bounded memory.

Equality (`Spill`): every value becomes a 128-bit record on disk, in as many bucket files as keep one
bucket small; equal values meet in the same bucket, and one bucket at a time is sorted in memory.
Integers are stored whole; strings as BLAKE2b of 128 bits, for which no collision is expected below
10^18 rows. Disk: 24 bytes a value. Memory: about 100 bytes a row of one bucket, so 10 to 30 MB up to
`BUCKETS` x `BUCKET_ROWS` = 16 million rows, and 80 MB at 100 million.

Nearness (`NearIndex`): two hashes that differ in at most d of 64 bits agree in at least one of d + 1
bands. Memory: 24 bytes an evaluation picture. Time grows with train x valid / 2^(64 / (d + 1)) for
hashes that fill their space: next to linear for d <= 2, the default. From d = 5 on the bands are too
short to sift anything, and every pair is compared: train x valid, some 10^8 pairs a second and core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BUCKET_ROWS = 1 << 17
BUCKETS = 1 << 7  # at most; four spills keep their files open at once, and 1024 are commonly allowed
RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<i8")])
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplication by it is a bijection of 64-bit integers
_PAIRS = 1 << 21  # hash pairs compared at once
_MIN_BAND_BITS = 12


class Spill:
    """Records by value on disk; `place` is any int64 that says where a value came from."""

    def __init__(self, folder: Path, name: str, rows: int) -> None:
        self._bits = min((rows // BUCKET_ROWS).bit_length(), BUCKETS.bit_length() - 1)
        self._files: list[BinaryIO] = [
            open(folder / f"{name}.{number}", "w+b")  # noqa: SIM115 - closed by __exit__
            for number in range(1 << self._bits)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def add_strings(self, values: Sequence[str], places: Places) -> None:
        """`places` (n,) belongs to the n `values`."""
        digests = b"".join(hashlib.blake2b(value.encode(), digest_size=16).digest() for value in values)
        words = np.frombuffer(digests, "<u8").reshape(-1, 2)
        self._add(words[:, 0], words[:, 1], places)

    def add_integers(self, values: npt.NDArray[np.int64], scope: int, places: Places) -> None:
        """`values` (n,) are compared with those of the same `scope` only."""
        high = values.astype(np.uint64) * _SPREAD
        self._add(high, np.full(len(high), scope, np.uint64), places)

    def _add(self, high: Words, low: Words, places: Places) -> None:
        records = np.empty(len(high), RECORD)
        records["high"], records["low"], records["place"] = high, low, places
        if not self._bits:
            self._files[0].write(records.tobytes())
            return
        buckets = high >> np.uint64(64 - self._bits)
        order = np.argsort(buckets, kind="stable")
        edges = np.searchsorted(buckets[order], np.arange(len(self._files) + 1, dtype=np.uint64))
        for file, start, stop in zip(self._files, edges[:-1], edges[1:], strict=True):
            if stop > start:
                file.write(records[order[start:stop]].tobytes())

    def groups(self) -> Iterator[tuple[npt.NDArray[np.int64], Places]]:
        """Per bucket: (group (n,), place (n,)), sorted by group; equal values have equal group numbers.

        Within a group, places ascend in the order of `add`. Group numbers count from 0 in each bucket.
        """
        for file in self._files:
            file.flush()
            file.seek(0)
            records = np.frombuffer(file.read(), RECORD)
            if not len(records):
                continue
            order = np.argsort(records["high"], kind="stable")
            high, low = records["high"][order], records["low"][order]
            if np.any((high[1:] == high[:-1]) & (low[1:] != low[:-1])):
                order = np.lexsort((low, records["high"]))  # stable, so places still ascend within a group
                high, low = records["high"][order], records["low"][order]
            starts = np.ones(len(high), bool)
            starts[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
            yield np.cumsum(starts) - 1, records["place"][order]


class Repeats:
    """How many rows repeat an earlier one, with examples (place, place of the first one)."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.examples: list[tuple[int, int]] = []
        self._limit = limit

    def add(self, group: npt.NDArray[np.int64], place: Places) -> None:
        repeated = np.flatnonzero(group[1:] == group[:-1]) + 1
        self.count += len(repeated)
        for index in repeated[: max(0, self._limit - len(self.examples))]:
            first = np.searchsorted(group, group[index])
            self.examples.append((int(place[index]), int(place[first])))


class Leaks:
    """Evaluation rows whose value also stands in training, with examples (place, place in train)."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.examples: list[tuple[int, int]] = []
        self._limit = limit

    def add(self, group: npt.NDArray[np.int64], place: Places, in_train: Mask) -> None:
        """All three of shape (n,)."""
        first_train = np.full(int(group[-1]) + 1, -1, np.int64)
        trained = np.flatnonzero(in_train)[::-1]
        first_train[group[trained]] = place[trained]  # the last write wins, and that is the first place
        leaked = np.flatnonzero(~in_train & (first_train[group] >= 0))
        self.count += len(leaked)
        for index in leaked[: max(0, self._limit - len(self.examples))]:
            self.examples.append((int(place[index]), int(first_train[group[index]])))


class NearIndex:
    """Evaluation hashes, asked chunk by chunk for their neighbours among training hashes."""

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
        """Evaluation pictures (not distinct hashes) with a training picture nearby."""
        return int(np.count_nonzero(self._partner[self._inverse] >= 0))

    def examples(self, limit: int) -> list[tuple[int, int, int]]:
        """(place, place in train, bits that differ), in the order of the places."""
        found = np.flatnonzero(self._partner >= 0)
        found = found[np.argsort(self._places[found], kind="stable")][:limit]
        return [(int(self._places[i]), int(self._partner[i]), int(self._between[i])) for i in found]


def _band(hashes: Words, start: int, width: int) -> Words:
    if width == 64:
        return hashes
    banded: Words = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
    return banded
