"""A permutation of range(n) that is computed place by place and not stored."""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from zerovl.data.batches.randomness import UInt64s, keys64

Rows = npt.NDArray[np.int64]


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
