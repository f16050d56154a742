"""Near hashes are found as by comparing all with all."""

from __future__ import annotations

import numpy as np
import pytest

from zerovl.data.filtering import near_pairs as module
from zerovl.data.filtering.leaks import ValidHashes
from zerovl.data.filtering.near_pairs import Places, Words, near_pairs


def drawn_hashes(seed: int) -> Words:
    """Random hashes, neighbours of some, and many that share their first 40 bits, as pictures on white paper do."""
    generator = np.random.default_rng(seed)
    spread = generator.integers(0, 1 << 63, 300, dtype=np.uint64)
    flips = generator.integers(0, 64, (2, 100)).astype(np.uint64)
    near = spread[:100] ^ (np.uint64(1) << flips[0]) ^ (np.uint64(1) << flips[1])
    white = generator.integers(0, 1 << 12, 400, dtype=np.uint64)
    return np.unique(np.concatenate([spread, near, white]))


def all_pairs(hashes: Words, distance: int) -> Places:
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    pairs: Places = np.argwhere(np.triu(apart <= distance, 1))
    return pairs


@pytest.mark.parametrize("distance", [0, 1, 2, 4, 8])
def test_pairs_are_those_of_comparing_all(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 16)  # so that groups are split again
    hashes = drawn_hashes(distance)
    expected = all_pairs(hashes, distance)
    assert distance == 0 or len(expected) > 100
    np.testing.assert_array_equal(near_pairs(hashes, distance), expected)


@pytest.mark.parametrize("distance", [0, 2, 6])
def test_the_nearest_valid_picture_is_found(distance: int) -> None:
    hashes = drawn_hashes(1)
    valid, asked = hashes[::3], hashes[1::3]
    numbers = np.arange(len(valid), dtype=np.int64) + 7
    nearest, apart = ValidHashes(valid, numbers, distance).nearest(asked)
    differing = np.bitwise_count(asked[:, None] ^ valid[None, :])  # (n, V)
    closest = differing.min(axis=1)
    expected = np.where(closest <= distance, numbers[differing.argmin(axis=1)], -1)
    np.testing.assert_array_equal(nearest, expected)
    np.testing.assert_array_equal(apart[nearest >= 0], closest[nearest >= 0])
