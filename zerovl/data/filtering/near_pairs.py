"""Pairs of perceptual hashes that differ in few bits, without comparing all with all.

Two hashes that differ in at most d of some bits agree in at least one of d + 1 parts of those bits. So hashes are
grouped by each part; within a small group all are compared, a large one is split again by the bits that are left. Large
groups are common: a picture on white paper has a part of zeros.

Memory is a few times the hashes' own. A million hashes, a tenth of them with 24 bits of zeros, take 0.6 s of CPU for
d = 2 and 7 s for d = 4; beyond, the parts are too short to tell much apart, and time nears that of comparing all.

Shapes: n hashes, p pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

ALL_BITS: Places = np.arange(64)
_SMALL = 512  # hashes of a group that are compared with each other


def parts_of(bits: Places, distance: int) -> list[Places]:
    """Return bits in `distance` + 1 parts, in one of which hashes agree that differ in at most `distance` of them."""
    return [part for part in np.array_split(bits, distance + 1) if len(part)]


def masked(hashes: Words, bits: Places) -> Words:
    """Return (n,) hashes with all but these bits zero."""
    mask = sum(1 << bit for bit in bits.tolist())
    return hashes & np.uint64(mask)


def near_pairs(hashes: Words, distance: int) -> Places:
    """Return (p, 2) places of distinct `hashes` (n,) that differ in at most `distance` bits, each pair once, sorted."""
    found = list(_split(hashes, np.arange(len(hashes)), ALL_BITS, distance))
    return unique_pairs(np.concatenate(found) if found else np.empty((0, 2), np.int64))


def unique_pairs(pairs: Places) -> Places:
    """Return pairs (p, 2) with the smaller number first, sorted, each once."""
    unique: Places = np.unique(np.sort(pairs, axis=1), axis=0)
    return unique


def pairs_in_groups(hashes: Words, groups: Places, bits: Places, distance: int) -> Iterator[Places]:
    """Give pairs (p, 2) of places within groups; `groups` (n,) ascend, and a group agrees outside of `bits`."""
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if len(groups) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(groups)))
    small = np.repeat(sizes <= _SMALL, sizes)
    yield _compare(hashes, groups, np.flatnonzero(small), distance)
    for start, size in zip(starts[sizes > _SMALL].tolist(), sizes[sizes > _SMALL].tolist(), strict=True):
        yield from _split(hashes, np.arange(start, start + size), bits, distance)


def _split(hashes: Words, places: Places, bits: Places, distance: int) -> Iterator[Places]:
    own = hashes[places]
    parts = _balanced_parts(own, bits, distance)
    groupings = [_grouped(masked(own, part)) for part in parts] if len(own) > _SMALL else []
    # Where these hashes differ in few bits only, groups stay large, and comparing all is less work.
    work = sum(int((np.bincount(group) ** 2).sum()) for _, group in groupings)
    if not groupings or 2 * work > len(own) ** 2:
        yield _compare(hashes, np.zeros(len(hashes), np.int64), places, distance)
        return
    for part, (order, group) in zip(parts, groupings, strict=True):
        for pairs in pairs_in_groups(own[order], group, np.setdiff1d(bits, part), distance):
            yield places[order[pairs]]


def _grouped(values: Words) -> tuple[Places, Places]:
    """Order in which equal values (n,) follow one another, and the ascending group of each in that order."""
    order = np.argsort(values, kind="stable")
    return order, np.cumsum(np.append(False, np.diff(values[order]) > 0))


def _balanced_parts(hashes: Words, bits: Places, distance: int) -> list[Places]:
    """As `parts_of`, each with its share of the bits that tell most of these hashes apart."""
    ones = np.array([np.count_nonzero(hashes & (np.uint64(1) << np.uint64(bit))) for bit in bits])
    told_apart = np.minimum(ones, len(hashes) - ones)
    by_use = bits[np.argsort(-told_apart, kind="stable")]
    return [by_use[start :: distance + 1] for start in range(min(distance + 1, len(bits)))]


def _compare(hashes: Words, groups: Places, places: Places, distance: int) -> Places:
    """Compare each of some places with those behind it in its group, one step at a time."""
    found = [np.empty((0, 2), np.int64)]
    own, group = hashes[places], groups[places]
    first = np.arange(len(places))
    for step in range(1, len(places)):
        first = first[first + step < len(places)]
        first = first[group[first] == group[first + step]]
        if not len(first):
            break
        near = first[np.bitwise_count(own[first] ^ own[first + step]) <= distance]
        found.append(np.stack([places[near], places[near + step]], axis=1))
    return np.concatenate(found)
