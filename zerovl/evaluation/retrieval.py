"""Compute image-text retrieval: R@1/5/10 both ways, RSUM and the median place of the right item.

The metric is that of the original ZeroVL code: images are deduplicated by `image_id`, and a query
counts at k when any item with its `image_id` is among the first k. Ties count by their expected value
(`zerovl.evaluation.ranking`).

Shapes: `I` images, `M` captions, `D` embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.errors import ZeroVLError
from zerovl.evaluation.metrics import KS
from zerovl.evaluation.ranking import Ints, Ranking
from zerovl.evaluation.two_way import rank_both_ways

RSUM = "rsum"  # the sum of the six recalls
_CHECKED_AT_ONCE = 65_536  # rows that are looked through for NaN


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
    ranks: Ranks = ALONE,
) -> RetrievalResult:
    """Rank all captions for every image and all images for every caption.

    Args:
        image_embeddings: (N, D); of rows with the same `image_id` the first counts.
        text_embeddings: (M, D).
        image_id: (N,) integers, 0 and negative ones included.
        text_image_id: (M,) the image that each caption belongs to.
        chunk: captions ranked at once, with a quarter as many images; memory is a few times chunk^2 bytes.
        ranks: who share the ranking; all give the same rows.

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

    i2t, t2i = rank_both_ways(take_rows(images, image_rows), texts, caption_image, chunk, ranks)
    return RetrievalResult(ids[image_rows], image_rows, caption_image, i2t, t2i)


def take_rows(values: torch.Tensor, rows: Ints) -> torch.Tensor:
    """Return some rows of a tensor, without a copy where they follow each other."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return values[int(rows[0]) : int(rows[0]) + len(rows)]
    return values[torch.from_numpy(rows)]


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


def _embeddings(values: npt.ArrayLike | torch.Tensor, name: str) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(values).detach().cpu().float()
    except (TypeError, ValueError) as error:
        raise ZeroVLError(f"{name}: not an array of numbers ({error}); expected (rows, width)") from None
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ZeroVLError(f"{name}: shape {tuple(tensor.shape)}, expected (rows, width) with at least one row")
    finite = torch.cat([torch.isfinite(part).all(1) for part in tensor.split(_CHECKED_AT_ONCE)])
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
