"""How far a lap is shuffled, by `train.shuffle`: any visit anywhere, or within groups of shards that are read together.

A lap is what gets an order of its own (see `epochs`). In blocks, the shards come in an order of their own, so many of
them make a group, and a group is shuffled as a whole: at any time a run needs the shards of one group and soon those of
the next, instead of all. Both orders are keyed permutations that are computed place by place.

Legend: `n` visits of a lap, `S` shards, `k` places that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zerovl.data.batches.permutation import Permutation, Rows
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError

Order = Callable[[npt.NDArray[np.integer]], Rows]  # (k,) places in range(n) -> (k,) members of the lap in range(n)

FirstOf = Callable[[Rows], Rows]

_LAPS_KEPT = 4  # a batch lies in two laps at most, and so does one of those that are looked at ahead


def themselves(pairs: Rows) -> Rows:
    """Return pairs as their visits, where each is visited once."""
    return pairs


class LapShuffle(Protocol):
    """Gives the order of a lap."""

    def __call__(self, size: int, laps: int, part: int, /, *key: int | str) -> Order:
        """Return the order of a lap of `size` members by `key`: visits part, part + laps, part + 2 laps, ..."""
        ...


class Shuffle(Protocol):
    """Gives the shuffle of laps over sources."""

    def over(self, sources: Sequence[str], first_of: FirstOf = themselves) -> LapShuffle:
        """Return that of some sources in one row; `first_of` gives the first visits (k,) of pairs (k,)."""
        ...


def anywhere(size: int, _laps: int, _part: int, *key: int | str) -> Order:
    """Return the order in which any member of a lap may come at any place."""
    return Permutation(size, *key)


class Global:
    """Shuffles each lap as a whole."""

    def over(self, _sources: Sequence[str], _first_of: FirstOf = themselves) -> LapShuffle:
        """Return `anywhere`."""
        return anywhere


class Blocks:
    """Shuffles each lap in groups of shards."""

    def __init__(self, shard_pairs: dict[str, Rows], group: int) -> None:
        """Take the pairs of each shard by source, (S,) each in the order of its index, and the shards of a group."""
        self._shard_pairs = shard_pairs
        self._group = group

    def over(self, sources: Sequence[str], first_of: FirstOf = themselves) -> LapShuffle:
        """Return the groups over the shards of some sources, those of one source after those of another."""
        pairs = np.concatenate([self._shard_pairs[name] for name in sources])
        bounds = np.concatenate([[0], np.cumsum(pairs)]).astype(np.int64)  # (S + 1,)
        return LapBlocks(first_of(bounds), self._group)


class LapBlocks:
    """Gives the orders of laps over shards; shard s holds the visits [bounds[s], bounds[s + 1])."""

    def __init__(self, bounds: Rows, group: int) -> None:
        self._bounds = bounds  # (S + 1,)
        self._group = group
        # Replaced and never changed: a thread that looks ahead asks for orders too.
        self._kept: dict[tuple[int | str, ...], Order] = {}

    def __call__(self, size: int, laps: int, part: int, *key: int | str) -> Order:
        """Return a `BlockPermutation`; the last ones are kept, as each costs O(S)."""
        order = self._kept.get(key)
        if order is None:
            members = -((part - self._bounds) // laps)  # (S + 1,) members of the lap before each shard
            blocks = BlockPermutation(np.diff(members), self._group, *key)
            if blocks.n != size:
                raise RuntimeError(f"the shards hold {blocks.n} of a lap's {size} members")
            order = blocks
            self._kept = dict(list(self._kept.items())[1 - _LAPS_KEPT :]) | {key: order}
        return order


class BlockPermutation:
    """Permutes range(n), the members of S shards one after the other: shards first, then inside groups of them."""

    def __init__(self, counts: Rows, group: int, *key: int | str) -> None:
        """Take the members of each shard (S,) and how many shards make a group; the last group may have fewer."""
        self.n = int(counts.sum())
        self._key = key
        order = Permutation(counts.size, *key, "shards")(np.arange(counts.size))  # (S,)
        self._counts = counts[order]  # (S,) in the order of the lap, as the next two
        self._firsts = (np.cumsum(counts) - counts)[order]  # first member of each shard
        self._ends = np.cumsum(self._counts)
        self._group_ends = self._ends[np.minimum(np.arange(0, counts.size, group) + group, counts.size) - 1]

    def __call__(self, positions: npt.NDArray[np.integer]) -> Rows:
        """(k,) positions in range(n) -> (k,) values in range(n)."""
        groups = np.searchsorted(self._group_ends, positions, side="right")  # (k,)
        places = np.empty(positions.size, dtype=np.int64)  # (k,) in the shards in the order of the lap
        for group in np.unique(groups).tolist():
            start = int(self._group_ends[group - 1]) if group else 0
            inside = Permutation(int(self._group_ends[group]) - start, *self._key, "group", group)
            its = groups == group
            places[its] = start + inside(positions[its] - start)
        shards = np.searchsorted(self._ends, places, side="right")  # (k,)
        return self._firsts[shards] + places - (self._ends[shards] - self._counts[shards])


def shuffle_by(name: str, group: int, manifest: Manifest) -> Shuffle:
    """Return what `train.shuffle` names, with groups of `train.block_shards`; raises `ZeroVLError` for another name."""
    if name == "global":
        return Global()
    if name == "blocks":
        return Blocks({source: shard_pairs(manifest, source) for source in manifest.sources("train")}, group)
    raise ZeroVLError(f"train.shuffle {name!r}: unknown; set it to global or blocks")


def shard_pairs(manifest: Manifest, source: str) -> Rows:
    """Return the training pairs of each of a source's shards, (S,); raises `ZeroVLError` where they do not add up."""
    info = manifest.splits[source, "train"]
    pairs = np.array([shard.samples for shard in info.shards], dtype=np.int64)
    if int(pairs.sum()) != info.pairs:
        raise ZeroVLError(
            f"{manifest.folder}: the shards of source {source} have {pairs.sum()} training pairs, its index "
            f"{info.pairs}; run `dvc repro -f prepare`"
        )
    return pairs
