"""All values of a column on disk, so that equal ones meet in bounded memory.

Every value becomes a 128-bit record, in as many bucket files as keep one bucket small; equal values meet in the same
bucket, and one bucket at a time is sorted in memory. Integers are stored whole; strings as BLAKE2b of 128 bits, for
which no collision is expected below 10^18 rows. Disk: 24 bytes a value. Memory: about 100 bytes a row of one bucket,
so 10 to 30 MB up to `BUCKETS` x `BUCKET_ROWS` = 16 million rows, and 80 MB at 100 million.
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

BUCKET_ROWS = 1 << 17
BUCKETS = 1 << 7  # at most; five columns keep their files open at once, and 1024 are commonly allowed
RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<i8")])
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplication by it is a bijection of 64-bit integers


class BucketFiles:
    """Holds the records of one column by value; `place` is any int64 that says where a value came from."""

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
        """Add strings; `places` (n,) belongs to the n `values`."""
        digests = b"".join(hashlib.blake2b(value.encode(), digest_size=16).digest() for value in values)
        words = np.frombuffer(digests, "<u8").reshape(-1, 2)
        self._add(words[:, 0], words[:, 1], places)

    def add_integers(self, values: npt.NDArray[np.int64], scope: int, places: Places) -> None:
        """Add integers, (n,) as their `places`; they are compared with those of the same `scope` only."""
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
        """Give (group (n,), place (n,)) of each bucket, sorted by group; equal values have equal group numbers.

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
