"""The interval: coverage where the truth is known, clusters respected, pairs narrower than singles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import Clusters, paired_difference, rsum_interval
from zerovl.evaluation.paired import difference
from zerovl.evaluation.retrieval import retrieval_metrics


def drawn(generator: np.random.Generator, images: int = 60, share: float = 0.4) -> Clusters:
    """Images whose captions hit or miss together, so that only clusters are independent."""
    captions = generator.integers(1, 6, size=images).astype(float)
    hit = (generator.random(images) < share).astype(float)
    return Clusters(3 * hit, 3 * hit * captions, captions)


def test_value_equals_the_metric() -> None:
    generator = np.random.default_rng(0)
    owner = np.concatenate([np.arange(25), generator.integers(25, size=30)])
    image = generator.standard_normal((25, 8))
    result = retrieval_metrics(image, image[owner] + 1.5 * generator.standard_normal((55, 8)), np.arange(25), owner)
    interval = rsum_interval(Clusters.of(result), 200, seed=0)
    assert interval.value == pytest.approx(result.metrics["rsum"])
    assert interval.low < interval.value < interval.high


def test_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(1)
    truth = 600 * 0.4
    covered = 0
    for trial in range(300):
        interval = rsum_interval(drawn(generator), 200, seed=trial)
        covered += interval.low <= truth <= interval.high
    # Four standard errors of 0.95 over 300 trials are 0.05; a bootstrap over single captions gives about 0.8.
    assert 0.90 <= covered / 300 <= 0.995


def test_weights_an_image_with_all_its_captions() -> None:
    """The same as ranking nothing again but counting the drawn images by hand."""
    generator = np.random.default_rng(2)
    clusters = drawn(generator, images=9)
    picked = generator.integers(9, size=9)
    by_hand = 100 * (
        np.mean(clusters.image_hits[picked]) + sum(clusters.caption_hits[picked]) / sum(clusters.captions[picked])
    )
    assert clusters.rsum(np.bincount(picked, minlength=9).astype(float)) == pytest.approx(by_hand)


def test_same_seed_same_interval() -> None:
    clusters = drawn(np.random.default_rng(3))
    assert rsum_interval(clusters, 100, seed=5) == rsum_interval(clusters, 100, seed=5)
    assert rsum_interval(clusters, 100, seed=5) != rsum_interval(clusters, 100, seed=6)


def test_all_hits_have_no_width() -> None:
    clusters = Clusters(np.full(5, 3.0), np.full(5, 6.0), np.full(5, 2.0))
    interval = rsum_interval(clusters, 50, seed=0)
    assert (interval.value, interval.low, interval.high) == (600, 600, 600)


def test_paired_difference_cancels_what_both_find_hard() -> None:
    holder = drawn(np.random.default_rng(4), images=400)
    better = holder.image_hits.copy()
    better[:20] = 3
    candidate = Clusters(better, holder.caption_hits, holder.captions)
    found = paired_difference(candidate, holder, 500, seed=0)
    single = rsum_interval(holder, 500, seed=0)
    assert found.value == pytest.approx(candidate.rsum() - holder.rsum())
    assert found.low > 0
    assert found.high - found.low < (single.high - single.low) / 3


def test_the_difference_of_one_source_is_that_of_the_mean_to_the_bit() -> None:
    """The gate takes the two for one rule where they are equal."""
    candidate, holder = (drawn(np.random.default_rng(seed), images=50) for seed in (1, 2))
    candidate = replace(candidate, captions=holder.captions)
    found = difference({"web": candidate}, {"web": holder}, 100, seed=3)
    assert found.sources == {"web": found.mean}


def test_paired_difference_of_different_queries_is_refused() -> None:
    generator = np.random.default_rng(5)
    with pytest.raises(ZeroVLError, match="different queries"):
        paired_difference(drawn(generator, 10), drawn(generator, 11), 10, seed=0)
