"""Compute image-text retrieval: R@1/5/10 both ways, RSUM and the median place of the right item.

The metric is that of the original ZeroVL code: images are deduplicated by `image_id`, and a query
counts at k when any item with its `image_id` is among the first k.

Ties are handled exactly: items with the same score are taken to stand in random order, and a query
counts with its expected value. So a model that gives every item the same embedding scores exactly
chance, and a caption text that several images share is neither a gift nor a penalty. Items with
bit-equal embeddings are scored once, so that they tie whatever the matrix product rounds to.

Shapes: `I` images, `M` captions, `D` embedding width, `Q` queries, `U` distinct items, `c` chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zerovl.errors import ZeroVLError

KS = (1, 5, 10)
METRICS = tuple(f"{direction}_r{k}" for direction in ("i2t", "t2i") for k in KS)
RSUM = "rsum"  # the sum of METRICS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


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
class RetrievalResult:
    """Rankings both ways, and which picture each row and caption belongs to."""

    image_ids: Ints  # (I,) distinct, in order of first appearance
    image_rows: Ints  # (I,) row of each one's embedding in the input
    caption_image: Ints  # (M,) position in `image_ids` of each caption's image
    i2t: Ranking  # (I,) queries
    t2i: Ranking  # (M,) queries

    @property
    def metrics(self) -> dict[str, float]:
        """Return `i2t_r1 ... t2i_r10` in percent, `rsum` (their sum, at most 600), and both median places."""
        values = _recalls(self.i2t, self.t2i)
        values["i2t_median_rank"] = float(np.median(self.i2t.expected_place))
        values["t2i_median_rank"] = float(np.median(self.t2i.expected_place))
        return values

    @property
    def rsum(self) -> float:
        """Return the sum of the six recalls in percent, at most 600."""
        return _recalls(self.i2t, self.t2i)[RSUM]

    @property
    def chance(self) -> dict[str, float]:
        """Return the exact expectation of the recalls and `rsum` for a random order of all items."""
        captions = np.bincount(self.caption_image, minlength=len(self.image_ids))  # (I,) captions of an image
        return chance_metrics(captions.astype(np.int64))


def retrieval_metrics(
    image_embeddings: npt.ArrayLike | torch.Tensor,
    text_embeddings: npt.ArrayLike | torch.Tensor,
    image_id: npt.ArrayLike,
    text_image_id: npt.ArrayLike,
    chunk: int = 1024,
) -> RetrievalResult:
    """Rank all captions for every image and all images for every caption.

    Args:
        image_embeddings: (N, D); of rows with the same `image_id` the first counts.
        text_embeddings: (M, D).
        image_id: (N,) integers, 0 and negative ones included.
        text_image_id: (M,) the image that each caption belongs to.
        chunk: queries ranked at once; memory is chunk x max(I, M) scores.

    Raises:
        ZeroVLError: sizes do not fit, an embedding is not finite, an image without a caption, or a
            caption without an image (it has no right answer, so no score).
    """
    images = _embeddings(image_embeddings, "image_embeddings")
    texts = _embeddings(text_embeddings, "text_embeddings")
    if images.shape[1] != texts.shape[1]:
        raise ZeroVLError(
            f"image_embeddings are {images.shape[1]} wide and text_embeddings {texts.shape[1]}; "
            "both must come from the same model"
        )
    ids = _ids(image_id, "image_id", len(images))
    caption_ids = _ids(text_image_id, "text_image_id", len(texts))

    sorted_ids, first = np.unique(ids, return_index=True)
    order = np.argsort(first)
    image_rows = first[order].astype(np.int64)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))  # place in the sorted ids -> place by first appearance
    found = np.searchsorted(sorted_ids, caption_ids).clip(max=len(sorted_ids) - 1)
    captions_without_image = caption_ids[sorted_ids[found] != caption_ids]
    if len(captions_without_image):
        raise ZeroVLError(f"text_image_id {captions_without_image[0]} is not in image_id; give every caption its image")
    caption_image = place[found]
    images_without_caption = np.setdiff1d(np.arange(len(image_rows)), caption_image)
    if len(images_without_caption):
        raise ZeroVLError(
            f"image_id {ids[image_rows[images_without_caption[0]]]} has no caption; leave it out or give it one"
        )

    images = images[torch.from_numpy(image_rows)]
    own = np.arange(len(images))
    return RetrievalResult(
        image_ids=ids[image_rows],
        image_rows=image_rows,
        caption_image=caption_image,
        i2t=rank(images, texts, own, caption_image, chunk),
        t2i=rank(texts, images, caption_image, own, chunk),
    )


def rank(queries: torch.Tensor, items: torch.Tensor, query_group: Ints, item_group: Ints, chunk: int) -> Ranking:
    """Rank items (M, D) for queries (Q, D); an item is right when it has the query's group.

    Groups are integers from 0; every query's group must have an item.
    """
    distinct, item_place, copies = _distinct_rows(items)  # (U, D), (M,), (U,)
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


def top_items(query: torch.Tensor, items: torch.Tensor, k: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Return the k best of items (M, D) for one query (D,): rows and scores, best first, ties in row order."""
    scores = (items @ query).numpy()
    rows = np.argsort(-scores, kind="stable")[:k]
    return rows.astype(np.int64), scores[rows]


def chance_metrics(captions: Ints) -> dict[str, float]:
    """Return the expected recalls and `rsum` of a random order; `captions` (I,): how many each image has."""
    images, total = len(captions), int(captions.sum())
    i2t = Ranking(np.zeros_like(captions), captions, total - captions)
    # All caption queries are alike: one right image among all.
    t2i = Ranking(np.zeros(1, np.int64), np.ones(1, np.int64), np.full(1, images - 1))
    return _recalls(i2t, t2i)


def _recalls(i2t: Ranking, t2i: Ranking) -> dict[str, float]:
    values = {f"i2t_r{k}": 100.0 * float(i2t.hits(k).mean()) for k in KS}
    values |= {f"t2i_r{k}": 100.0 * float(t2i.hits(k).mean()) for k in KS}
    return values | {RSUM: sum(values.values())}


def _distinct_rows(items: torch.Tensor) -> tuple[torch.Tensor, Ints, Ints]:
    """Bit-equal rows once: distinct (U, D), place (M,) of each item among them, copies (U,)."""
    rows = np.ascontiguousarray(items.numpy()) + np.float32(0)  # -0.0 becomes 0.0
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, place, copies = np.unique(as_bytes, return_index=True, return_inverse=True, return_counts=True)
    return items[torch.from_numpy(first)], place.astype(np.int64), copies.astype(np.int64)


def _weighted_count(mask: torch.Tensor, copies: Ints) -> Ints:
    """Items behind the true entries of a mask (c, U): (c,)."""
    if copies.max() == 1:
        return mask.sum(1).numpy().astype(np.int64)
    weights = torch.from_numpy(copies).double()  # float64 counts exactly up to 2^53 items
    return (mask.double() @ weights).numpy().astype(np.int64)


def _embeddings(values: npt.ArrayLike | torch.Tensor, name: str) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(values).detach().cpu().float()
    except (TypeError, ValueError) as error:
        raise ZeroVLError(f"{name}: not an array of numbers ({error}); expected (rows, width)") from None
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ZeroVLError(f"{name}: shape {tuple(tensor.shape)}, expected (rows, width) with at least one row")
    finite = torch.isfinite(tensor).all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise ZeroVLError(f"{name}: row {row} has NaN or infinite values; the model diverged or the file is damaged")
    return tensor


def _ids(values: npt.ArrayLike, name: str, rows: int) -> Ints:
    ids: npt.NDArray[Any] = np.asarray(values)
    if ids.shape != (rows,):
        raise ZeroVLError(f"{name}: shape {ids.shape}, expected ({rows},), one id an embedding")
    if not np.issubdtype(ids.dtype, np.integer):
        raise ZeroVLError(f"{name}: holds {ids.dtype}, expected integers")
    return ids.astype(np.int64)
