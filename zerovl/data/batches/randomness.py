"""Random numbers by counting: draw i of a stream is a function of (key, i), with no state between draws.

So a step, a sample or a token can be drawn alone, in any order and on any process. Only integer
arithmetic and BLAKE2 are used: the draws are the same with every version of numpy and Python.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def keys64(count: int, *parts: int | str) -> list[int]:
    """Return `count` (8 at most) independent 64-bit keys of the values in `parts`."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8 * count).digest()
    return [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(count)]


def splitmix64(counters: UInt64s) -> UInt64s:
    """Mix 64-bit counters, any shape, to 64 random bits each.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = counters * _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def uniform(counters: UInt64s) -> npt.NDArray[np.float64]:
    """Return one number in [0, 1) for each counter, any shape."""
    return (splitmix64(counters) >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


class RowRandom:
    """Gives uniform draws for the rows of a table, each row by a seed of its own.

    The draw at (row, column) does not depend on the other rows nor on the number of columns, so
    a caption gets the same draws in every batch and with every padding.
    """

    def __init__(self, seeds: UInt64s) -> None:
        # Mixed once more, so that seeds in sequence do not give rows that are shifted copies.
        self.seeds = splitmix64(np.asarray(seeds, dtype=np.uint64))  # (m,)

    def uniform(self, stream: int, columns: int) -> npt.NDArray[np.float64]:
        """Return (m, columns) in [0, 1); equal `stream` gives equal draws."""
        counters = np.arange(columns, dtype=np.uint64) + np.uint64(stream << 32)  # (columns,)
        return uniform(self.seeds[:, None] + counters)
