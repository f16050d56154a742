"""Compute 95% intervals of RSUM by the bootstrap over images.

An image and its captions are drawn together (a cluster bootstrap), because captions of one image are
not independent. With several sources the images of each are drawn within it (a stratified bootstrap), and
the value is the mean of the sources' RSUM. The hits of the queries are computed once; a resample only
weighs them, so nothing is ranked again. The interval says how much the score would move with other
queries of the same kind against the same pool of candidates; it says nothing about other training seeds.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zerovl.errors import ZeroVLError
from zerovl.evaluation.metrics import KS, Interval

if TYPE_CHECKING:  # torch, which readers of kept figures do without
    from zerovl.evaluation.ranking import Ranking
    from zerovl.evaluation.retrieval import RetrievalResult

Floats = npt.NDArray[np.float64]
LEVEL = 0.95


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
    return mean_interval([clusters], resamples, seed)


def mean_interval(sources: Sequence[Clusters], resamples: int, seed: int) -> Interval:
    """Compute the mean over sources of RSUM with its 95% interval, the images of each source drawn within it."""
    draws = [
        fmean(its.rsum(weights) for its, weights in zip(sources, drawn, strict=True))
        for drawn in weights_of_draws([len(its.image_hits) for its in sources], resamples, seed)
    ]
    return percentile_interval(fmean(its.rsum() for its in sources), draws)


def paired_difference(candidate: Clusters, holder: Clusters, resamples: int, seed: int) -> Interval:
    """Compute RSUM of the candidate minus that of the holder on the same queries, with its 95% interval.

    Both are measured on the same resamples, so what is hard for both cancels: the interval is far
    narrower than two separate ones. Image i must be the same in both.

    Raises:
        ZeroVLError: both do not have the same number of captions an image, so the queries differ.
    """
    return paired_mean_difference([candidate], [holder], resamples, seed)


def paired_mean_difference(
    candidate: Sequence[Clusters], holder: Sequence[Clusters], resamples: int, seed: int
) -> Interval:
    """Compute the same for the mean over sources: source by source in the same order, each drawn within itself.

    Raises:
        ZeroVLError: a source of one is not the same queries as that of the other.
    """
    pairs = list(zip(candidate, holder, strict=True))
    for ours, theirs in pairs:
        if not np.array_equal(ours.captions, theirs.captions):
            raise ZeroVLError(
                f"candidate and holder were measured on different queries ({len(ours.captions)} and "
                f"{len(theirs.captions)} images); evaluate both on the same validation splits"
            )
    draws = [
        fmean(ours.rsum(weights) - theirs.rsum(weights) for (ours, theirs), weights in zip(pairs, drawn, strict=True))
        for drawn in weights_of_draws([len(ours.captions) for ours, _ in pairs], resamples, seed)
    ]
    return percentile_interval(fmean(ours.rsum() - theirs.rsum() for ours, theirs in pairs), draws)


def weights_of_draws(images: Sequence[int], resamples: int, seed: int) -> Iterator[list[Floats]]:
    """Draw how often each image of each source counts, (I,) a source; one resample at a time, so memory is O(I)."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield [np.bincount(generator.integers(n, size=n), minlength=n).astype(np.float64) for n in images]


def percentile_interval(value: float, draws: Sequence[float]) -> Interval:
    """Return a value with the middle 95% of what its resamples gave."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
