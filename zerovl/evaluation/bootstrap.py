"""Compute 95% intervals of RSUM by the bootstrap over images.

An image and its captions are drawn together (a cluster bootstrap), because captions of one image are
not independent. The hits of the queries are computed once; a resample only weighs them, so nothing is
ranked again. The interval says how much the score would move with other queries of the same kind
against the same pool of candidates; it says nothing about other training seeds.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zerovl.errors import ZeroVLError
from zerovl.evaluation.retrieval import KS, Ranking, RetrievalResult

Floats = npt.NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval."""

    value: float  # of the data as they are
    low: float
    high: float


@dataclass(frozen=True)
class Clusters:
    """Hits of each image and its captions, all that a resample needs: (I,) each, summed over k = 1, 5, 10."""

    image_hits: Floats  # of the image as a query
    caption_hits: Floats  # of its captions as queries, summed
    captions: Floats  # how many it has

    @classmethod
    def of(cls, result: RetrievalResult) -> Clusters:
        """Make clusters of a ranking both ways."""
        return cls.of_hits(summed_hits(result.i2t), summed_hits(result.t2i), result.caption_image)

    @classmethod
    def of_hits(cls, image_hits: Floats, caption_hits: Floats, caption_image: npt.NDArray[np.int64]) -> Clusters:
        """Make clusters of the hits of images (I,) and of captions (M,), and of each caption's image (M,)."""
        images = len(image_hits)
        return cls(
            image_hits,
            np.bincount(caption_image, weights=caption_hits, minlength=images).astype(np.float64),
            np.bincount(caption_image, minlength=images).astype(np.float64),
        )

    def rsum(self, weights: Floats | None = None) -> float:
        """Compute RSUM with each image counted `weights` (I,) times."""
        if weights is None:
            weights = np.ones(len(self.image_hits))
        i2t = weights @ self.image_hits / weights.sum()
        t2i = weights @ self.caption_hits / (weights @ self.captions)
        return float(100.0 * (i2t + t2i))


def summed_hits(ranking: Ranking) -> Floats:
    """Add up the hits at 1, 5 and 10: (Q,), from 0 to 3."""
    total: Floats = np.sum([ranking.hits(k) for k in KS], axis=0)
    return total


def rsum_interval(clusters: Clusters, resamples: int, seed: int) -> Interval:
    """Compute RSUM with its 95% percentile interval; the same seed gives the same interval."""
    draws = [clusters.rsum(weights) for weights in _weights(len(clusters.image_hits), resamples, seed)]
    return _percentiles(clusters.rsum(), draws)


def paired_difference(candidate: Clusters, holder: Clusters, resamples: int, seed: int) -> Interval:
    """Compute RSUM of the candidate minus that of the holder on the same queries, with its 95% interval.

    Both are measured on the same resamples, so what is hard for both cancels: the interval is far
    narrower than two separate ones. Image i must be the same in both.

    Raises:
        ZeroVLError: both do not have the same number of captions an image, so the queries differ.
    """
    if not np.array_equal(candidate.captions, holder.captions):
        raise ZeroVLError(
            f"candidate and holder were measured on different queries ({len(candidate.captions)} and "
            f"{len(holder.captions)} images); evaluate both on the same validation splits"
        )
    draws = [
        candidate.rsum(weights) - holder.rsum(weights) for weights in _weights(len(candidate.captions), resamples, seed)
    ]
    return _percentiles(candidate.rsum() - holder.rsum(), draws)


def _weights(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw how often each image counts, (I,) a resample; one at a time, so memory is O(I)."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(images, size=images), minlength=images).astype(np.float64)


def _percentiles(value: float, draws: list[float]) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
