"""Rank all captions for every picture and all pictures for every caption in one sweep over tiles of their scores.

A tile of scores counts both ways, so the matrix product is computed once, and memory is a few tiles whatever the
pool's size. The score of a right pair is needed before anything is counted: the tiles that hold one are computed
first, and again in the sweep. Both times it is the same product of the same rows, so the scores are bit-equal, and a
right item ties with itself. In pools in the order of their pictures these are the tiles along the diagonal.

The ranks of a group deal rows of tiles among them, and add up integers: any number of ranks gives the same. The slow
reference is `ranking.rank`, each way for itself.

Shapes: `I` images, `M` captions, `D` embedding width, `P` and `C` distinct images and captions, `r` and `c` rows and
columns of a tile, `q` queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from zerovl.distributed.ranks import Ranks
from zerovl.evaluation.ranking import DistinctRows, Ints, Ranking

Scores = npt.NDArray[np.float32]
_ROW_SHARE = 4  # a tile has a quarter as many pictures as captions: often there are about five captions a picture
_EXACT_IN_FLOAT32 = 1 << 24  # sums of whole numbers up to here


def rank_both_ways(images: Tensor, texts: Tensor, caption_image: Ints, chunk: int, ranks: Ranks) -> tuple[Ranking, ...]:
    """Return the rankings of captions for images, and of images for captions; the same on all ranks.

    Args:
        images: (I, D) float32, each with a caption at least.
        texts: (M, D) float32.
        caption_image: (M,) the row of each caption's image.
        chunk: captions of a tile; memory is some ten times chunk^2 bytes.
        ranks: who share the work, and on which device.
    """
    pictures, captions = _Rows.of(images, ranks), _Rows.of(texts, ranks)
    tiles = _Tiles(pictures, captions, max(1, chunk // _ROW_SHARE), chunk, ranks)
    right = tiles.scores_of(pictures.unique.place[caption_image], captions.unique.place)  # (M,)
    best = np.full(len(images), -np.inf, np.float32)  # (I,)
    np.maximum.at(best, caption_image, right)

    of_images, of_captions = _Queries.of(pictures.unique.place, best), _Queries.of(captions.unique.place, right)
    i2t, t2i = tiles.count(of_images, of_captions)  # (2, q) each
    tying = np.bincount(caption_image, weights=right == best[caption_image], minlength=len(images)).astype(np.int64)
    return of_images.ranking(i2t, tying), of_captions.ranking(t2i, np.ones(len(texts), np.int64))


@dataclass(frozen=True)
class _Rows:
    """Embeddings (N, D) of which bit-equal rows are scored once."""

    unique: DistinctRows
    values: Tensor  # (N, D) on the device
    weights: Tensor  # (U,) copies of each distinct row, as floats that add up exactly

    @classmethod
    def of(cls, values: Tensor, ranks: Ranks) -> _Rows:
        unique = DistinctRows.of(values)
        exact = torch.float32 if len(values) < _EXACT_IN_FLOAT32 else torch.float64
        return cls(unique, values.to(ranks.device), torch.from_numpy(unique.copies).to(ranks.device, exact))

    def __len__(self) -> int:
        return len(self.unique.first)

    def distinct(self, start: int, stop: int) -> Tensor:
        """Return some of the distinct rows, (stop - start, D), without a copy where all rows are."""
        if len(self) == len(self.values):
            return self.values[start:stop]
        return self.values[torch.from_numpy(self.unique.first[start:stop]).to(self.values.device)]


@dataclass(frozen=True)
class _Queries:
    """The queries of one side, equal ones once: a distinct row with the score that others are held against."""

    row: Ints  # (q,) ascending; each distinct row is there at least once
    score: Scores  # (q,) of the best right item
    of_each: Ints  # (Q,) which of the q each query is

    @classmethod
    def of(cls, row: Ints, score: Scores) -> _Queries:
        keys = row << 32 | score.view(np.uint32).astype(np.int64)
        _, first, of_each = np.unique(keys, return_index=True, return_inverse=True)
        return cls(row[first], score[first], of_each.reshape(-1).astype(np.int64))

    def within(self, start: int, stop: int) -> slice:
        """Return the queries of rows from `start` to `stop`."""
        return slice(*np.searchsorted(self.row, [start, stop]).tolist())

    def ranking(self, counts: Ints, tying: Ints) -> Ranking:
        """Return the places of all Q queries; `counts` (2, q) above and at their score, `tying` (Q,) right ones."""
        higher, tied = counts[:, self.of_each]
        return Ranking(higher, tying, tied - tying)


@dataclass(frozen=True)
class _Tiles:
    """The scores of all distinct images (P) with all distinct captions (C), some rows and columns at a time."""

    pictures: _Rows
    captions: _Rows
    rows: int  # r
    columns: int  # c
    ranks: Ranks

    def scores_of(self, row: Ints, column: Ints) -> Scores:
        """Return the scores of pairs (M,), each as its tile has it."""
        found = torch.zeros(len(row))
        across = -(-len(self.captions) // self.columns)
        tile = row // self.rows * across + column // self.columns
        order = np.argsort(tile, kind="stable")
        numbers, starts = np.unique(tile[order], return_index=True)
        for number, pairs in zip(numbers, np.split(order, starts[1:]), strict=True):
            down, right = divmod(int(number), across)
            if not self._is_own(down):
                continue
            top, left = down * self.rows, right * self.columns
            scores = self._tile(self._picture_rows(top), left)
            at = (torch.from_numpy(places[pairs] - start) for places, start in ((row, top), (column, left)))
            found[torch.from_numpy(pairs)] = scores[*(places.to(scores.device) for places in at)].cpu()
        summed: Scores = self.ranks.collectives.sum(found).numpy()  # the other ranks' are 0 here, so this is exact
        return summed

    def count(self, of_images: _Queries, of_captions: _Queries) -> tuple[Ints, Ints]:
        """Count the items above and at each query's score: of captions (2, q) and of images (2, q)."""
        device = self.ranks.device
        down, across = (torch.from_numpy(its.score).to(device) for its in (of_images, of_captions))
        i2t, t2i = (torch.zeros(2, len(its.row), dtype=torch.int64, device=device) for its in (of_images, of_captions))
        for top in self._own_rows():
            pictures = self._picture_rows(top)
            weights = self.pictures.weights[top : top + self.rows]
            its_queries = of_images.within(top, top + self.rows)
            for left in range(0, len(self.captions), self.columns):
                scores = self._tile(pictures, left)  # (r, c)
                columns = slice(left, left + self.columns)
                asked = self._asked(scores, of_images.row[its_queries] - top)
                i2t[:, its_queries] += _counts(asked, down[its_queries], self.captions.weights[columns])
                queries = of_captions.within(left, left + self.columns)
                asked = self._asked(scores.T, of_captions.row[queries] - left)
                t2i[:, queries] += _counts(asked, across[queries], weights)
        summed = (self.ranks.collectives.sum(its.cpu()).numpy() for its in (i2t, t2i))
        return next(summed), next(summed)

    def _own_rows(self) -> Iterator[int]:
        starts = range(0, len(self.pictures), self.rows)
        for number, top in enumerate(tqdm(starts, desc="ranking", unit="", leave=False, disable=not self._tells)):
            if self._is_own(number):
                yield top

    @cached_property
    def _tells(self) -> bool:
        """Whether the progress is shown: of the first rank, and of pools that take more than a moment."""
        return self.ranks.is_first and len(self.pictures) > 10 * self.rows

    def _is_own(self, number: int) -> bool:
        return number % self.ranks.world_size == self.ranks.rank

    def _picture_rows(self, top: int) -> Tensor:
        return self.pictures.distinct(top, top + self.rows)

    def _tile(self, pictures: Tensor, left: int) -> Tensor:
        return pictures @ self.captions.distinct(left, left + self.columns).T

    def _asked(self, scores: Tensor, rows: Ints) -> Iterator[tuple[slice, Tensor]]:
        """Give the rows of scores that queries ask for, as many as a tile has at once: their places, and (n, items)."""
        if len(rows) == len(scores):
            yield slice(None), scores
            return
        for start in range(0, len(rows), self.columns):
            part = rows[start : start + self.columns]
            yield slice(start, start + len(part)), scores[torch.from_numpy(part).to(scores.device)]


def _counts(asked: Iterator[tuple[slice, Tensor]], best: Tensor, weights: Tensor) -> Tensor:
    """Count items above and at the best right score (n,) of each query, by their weights: (2, n)."""
    counts = torch.empty(2, len(best), dtype=torch.int64, device=best.device)
    for places, scores in asked:
        # In the weights' type at once: a sum over booleans takes several times as long as the product.
        mask = torch.empty_like(scores, dtype=weights.dtype)
        bound = best[places, None]
        counts[0, places] = (torch.gt(scores, bound, out=mask) @ weights).to(torch.int64)
        counts[1, places] = (torch.eq(scores, bound, out=mask) @ weights).to(torch.int64)
    return counts
