"""Rank items for queries: the place of the best right item of each, ties by their expected value.

Ties are handled exactly: items with the same score are taken to stand in random order, and a query
counts with its expected value. So a model that gives every item the same embedding scores exactly
chance, and a caption text that several images share is neither a gift nor a penalty. Items with
bit-equal embeddings are scored once, so that they tie whatever the matrix product rounds to.

`rank` is the slow reference of `two_way.rank_both_ways`, and ranks classes for pictures.

Shapes: `Q` queries, `M` items, `D` embedding width, `U` distinct items, `c` chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_HASHED_AT_ONCE = 16_384  # rows copied to be hashed


@dataclass(frozen=True)
class Ranking:
    """The place of the best right item of each query among all items."""

    better: Ints  # (Q,) wrong items with a higher score than the best right item
    right: Ints  # (Q,) right items that share the best right score, at least 1
    wrong: Ints  # (Q,) wrong items that tie with them

    def hits(self, k: int) -> Floats:
        """Return the probability (Q,) that a right item is among the first k, over random orders of ties.

        Of the k - better places left to the tied items, none is right with the hypergeometric
        probability prod_t (wrong - t) / (right + wrong - t).
        """
        tied = self.right + self.wrong
        places = np.clip(k - self.better, 0, tied)
        missed = np.ones(len(tied))
        for taken in range(k):
            left = np.maximum(self.wrong - taken, 0) / np.maximum(tied - taken, 1)
            missed = np.where(taken < places, missed * left, missed)
        return 1.0 - missed

    @property
    def expected_place(self) -> Floats:
        """Return the expected place (Q,) of the first right item, from 1."""
        return self.better + (self.right + self.wrong + 1) / (self.right + 1)


@dataclass(frozen=True)
class DistinctRows:
    """Bit-equal rows once, in the order in which they first appear; -0.0 and 0.0 are the same."""

    first: Ints  # (U,) a row of each
    place: Ints  # (N,) which of the U each row is
    copies: Ints  # (U,) how many rows each is

    @classmethod
    def of(cls, rows: torch.Tensor) -> DistinctRows:
        """Compare rows (N, D) by a digest of 128 bits each: sorting the rows themselves would copy them twice."""
        digests = b"".join(
            blake2b(row, digest_size=16).digest()
            for part in rows.split(_HASHED_AT_ONCE)
            for row in np.ascontiguousarray(part.cpu().numpy()) + np.float32(0)  # -0.0 becomes 0.0
        )
        keys = np.frombuffer(digests, np.dtype((np.void, 16)))
        _, first, place, copies = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        order = np.argsort(first)
        by_appearance = np.empty(len(order), np.int64)
        by_appearance[order] = np.arange(len(order))
        return cls(first[order].astype(np.int64), by_appearance[place.reshape(-1)], copies[order].astype(np.int64))


def rank(queries: torch.Tensor, items: torch.Tensor, query_group: Ints, item_group: Ints, chunk: int) -> Ranking:
    """Rank items (M, D) for queries (Q, D); an item is right when it has the query's group.

    Groups are integers from 0; every query's group must have an item. Memory is `chunk` x U scores, several times.
    """
    unique = DistinctRows.of(items)
    distinct, item_place, copies = items[torch.from_numpy(unique.first)], unique.place, unique.copies  # (U, D)
    by_group = np.argsort(item_group, kind="stable")  # (M,) items, group by group
    counts = np.bincount(item_group)
    starts = np.concatenate([[0], np.cumsum(counts)])  # items of group g: by_group[starts[g] : starts[g + 1]]

    parts: list[tuple[Ints, Ints, Ints]] = []
    for begin in range(0, len(queries), chunk):
        groups = query_group[begin : begin + chunk]  # (c,)
        sizes = counts[groups]
        row = np.repeat(np.arange(len(groups)), sizes)  # (R,) a query for each of its right items
        offset = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        column = item_place[by_group[starts[groups][row] + offset]]  # (R,) the right item among the distinct ones

        scores = queries[begin : begin + chunk] @ distinct.T  # (c, U)
        right_rows = torch.from_numpy(row)
        right_scores = scores[right_rows, torch.from_numpy(column)]  # (R,)
        best = torch.full((len(groups),), -torch.inf).scatter_reduce(0, right_rows, right_scores, "amax")  # (c,)

        higher = _weighted_count(scores > best[:, None], copies)
        tied = _weighted_count(scores == best[:, None], copies)
        right = np.bincount(row[(right_scores == best[right_rows]).numpy()], minlength=len(groups))
        parts.append((higher, right.astype(np.int64), tied - right))
    better, right, wrong = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Ranking(better, right, wrong)


def _weighted_count(mask: torch.Tensor, copies: Ints) -> Ints:
    """Items behind the true entries of a mask (c, U): (c,)."""
    if copies.max() == 1:
        return mask.sum(1).numpy().astype(np.int64)
    weights = torch.from_numpy(copies).double()  # float64 counts exactly up to 2^53 items
    return (mask.double() @ weights).numpy().astype(np.int64)
