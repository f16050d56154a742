"""The fast ranking against a slow one, against the original's golden figures, and its edges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tests.support.paths import PARITY
from zerovl.errors import ZeroVLError
from zerovl.evaluation.metrics import KS, RECALLS
from zerovl.evaluation.ranking import Ranking
from zerovl.evaluation.retrieval import chance_metrics, retrieval_metrics


def planted(images: int, captions_each: int, width: int = 16, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Random image embeddings, noisy copies of them as captions, shuffled; ids from 0.

    All values are multiples of 1/256, so float32 holds their products and sums exactly, in whatever order a processor
    adds them: two ways to the same score agree to the bit.
    """
    generator = np.random.default_rng(seed)
    image = _multiples_of_256th(generator.standard_normal((images, width)))
    caption_image = generator.permutation(np.repeat(np.arange(images), captions_each))
    noise = generator.standard_normal((len(caption_image), width))
    return image, _multiples_of_256th(image[caption_image] + 1.5 * noise), np.arange(images), caption_image


def _multiples_of_256th(values: np.ndarray) -> np.ndarray:
    return (np.round(256 * values) / 256).astype(np.float32)


def reference(image: np.ndarray, text: np.ndarray, image_id: np.ndarray, text_id: np.ndarray) -> dict[str, float]:
    """Python loops and a full sort; for data where no wrong item ties with a right one."""
    first = [row for row, value in enumerate(image_id) if value not in image_id[:row]]
    image, image_id = image[first], image_id[first]
    values = {}
    for name, queries, items, query_id, item_id in [
        ("i2t", image, text, image_id, text_id),
        ("t2i", text, image, text_id, image_id),
    ]:
        for k in KS:
            hits = 0
            for query, its_id in zip(queries, query_id, strict=True):
                scores = [float(query @ item) for item in items]
                scored = sorted(range(len(items)), key=lambda row: -scores[row])
                hits += any(item_id[row] == its_id for row in scored[:k])
            values[f"{name}_r{k}"] = 100 * hits / len(queries)
    return values | {"rsum": sum(values.values())}


@pytest.mark.parametrize("captions_each", [1, 3])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_equals_the_slow_reference(captions_each: int, chunk: int) -> None:
    data = planted(40, captions_each)
    metrics = retrieval_metrics(*data, chunk=chunk).metrics
    expected = reference(*data)
    assert 50 < expected["rsum"] < 550  # else the comparison could not fail
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


@pytest.mark.skipif(not PARITY.exists(), reason="the golden files are not here")
def test_golden_parity_with_the_original() -> None:
    arrays = np.load(PARITY / "embeddings.npz", allow_pickle=False)
    golden = json.loads((PARITY / "metrics.json").read_text())
    ids = arrays["image_id"]
    metrics = retrieval_metrics(arrays["image_embeddings"], arrays["text_embeddings"], ids, ids, chunk=10).metrics
    for direction in ("i2t", "t2i"):
        for k in KS:
            # The golden figures are float32 shares times 100: far below one query.
            assert metrics[f"{direction}_r{k}"] == pytest.approx(golden[f"zs_{direction.upper()}-R@{k}"], abs=1e-5)
    assert metrics["rsum"] == pytest.approx(golden["zs_RSUM"], abs=1e-5)


def test_image_rows_with_the_same_id_count_once_and_id_zero_counts() -> None:
    image, text, image_id, text_id = planted(12, 3)
    repeated = retrieval_metrics(image[text_id], text, text_id, text_id)
    once = retrieval_metrics(image, text, image_id, text_id)
    assert 0 in repeated.image_ids
    assert len(repeated.image_ids) == 12
    assert repeated.metrics == pytest.approx(once.metrics)
    assert np.array_equal(repeated.image_ids[repeated.caption_image], text_id)
    assert np.array_equal(text_id[repeated.image_rows], repeated.image_ids)


def test_ids_may_be_negative_large_and_unordered() -> None:
    image, text, image_id, text_id = planted(20, 2)
    names = np.random.default_rng(1).permutation(20) * 10**12 - 5 * 10**12
    renamed = retrieval_metrics(image, text, names[image_id], names[text_id])
    assert renamed.metrics == retrieval_metrics(image, text, image_id, text_id).metrics


def test_hits_are_the_share_over_all_orders_of_ties() -> None:
    """Against a simulation that shuffles the tied items."""
    generator = np.random.default_rng(0)
    for better, right, wrong in [(0, 1, 0), (0, 1, 3), (2, 2, 4), (4, 1, 30), (0, 3, 9), (11, 1, 0), (9, 5, 5)]:
        ranking = Ranking(*(np.array([value]) for value in (better, right, wrong)))
        tied = np.array([True] * right + [False] * wrong)
        first = np.array([better + 1 + int(np.argmax(generator.permutation(tied))) for _ in range(20_000)])
        for k in KS:
            assert ranking.hits(k)[0] == pytest.approx((first <= k).mean(), abs=0.015)
        assert ranking.expected_place[0] == pytest.approx(first.mean(), rel=0.02)


def test_equal_captions_of_different_images_tie_exactly_at_any_place() -> None:
    """Bit-equal embeddings must tie though a matrix product may round them differently by column."""
    generator = np.random.default_rng(3)
    image = generator.standard_normal((33, 37)).astype(np.float32)
    text = np.repeat(image[:1], 33, axis=0)  # every image has the same caption
    result = retrieval_metrics(image, text, np.arange(33), np.arange(33), chunk=5)
    assert (result.i2t.better == 0).all()
    assert (result.i2t.wrong == 32).all()
    assert result.metrics["i2t_r5"] == pytest.approx(100 * 5 / 33)


def test_a_constant_model_scores_exactly_chance() -> None:
    captions = np.array([1, 4, 2, 1, 5, 3, 1, 1, 1, 1, 1, 1])
    text_id = np.repeat(np.arange(12), captions)
    result = retrieval_metrics(np.ones((12, 3)), np.ones((len(text_id), 3)), np.arange(12), text_id)
    metrics = result.metrics
    assert {name: metrics[name] for name in result.chance} == pytest.approx(result.chance)


def test_chance_against_simulation_and_against_binomials() -> None:
    captions = np.array([1, 2, 5, 1, 3, 8, 1, 1, 2, 4, 1, 1, 1])
    values = chance_metrics(captions)
    total = int(captions.sum())
    for k in KS:
        misses = [math.comb(total - int(own), k) / math.comb(total, k) for own in captions]
        assert values[f"i2t_r{k}"] == pytest.approx(100 * (1 - np.mean(misses)))
        assert values[f"t2i_r{k}"] == pytest.approx(100 * min(1, k / 13))

    generator = np.random.default_rng(0)
    text_id = np.repeat(np.arange(13), captions)
    simulated = [
        retrieval_metrics(
            generator.standard_normal((13, 8)), generator.standard_normal((total, 8)), np.arange(13), text_id
        ).metrics["rsum"]
        for _ in range(400)
    ]
    assert values["rsum"] == pytest.approx(np.mean(simulated), abs=4 * np.std(simulated) / 20)


def test_a_perfect_model_scores_600() -> None:
    image, _, image_id, text_id = planted(30, 2)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    metrics = retrieval_metrics(torch.from_numpy(image), image[text_id], image_id, text_id).metrics
    assert all(metrics[name] == 100 for name in RECALLS)
    assert metrics["rsum"] == 600
    assert metrics["t2i_median_rank"] == 1


def test_fewer_items_than_k() -> None:
    metrics = retrieval_metrics(np.eye(2), -np.eye(2), [0, 1], [0, 1]).metrics
    assert metrics["i2t_r1"] == 0
    assert metrics["i2t_r5"] == 100
    assert metrics["t2i_median_rank"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_embeddings": np.array([[1.0, np.nan], [0, 1]])}, "image_embeddings: row 0 has NaN"),
        ({"text_embeddings": np.array([[1.0, 0], [np.inf, 1]])}, "text_embeddings: row 1 has NaN or infinite"),
        ({"text_embeddings": np.ones((2, 3))}, "2 wide and text_embeddings 3"),
        ({"text_embeddings": np.ones(2)}, "text_embeddings: shape"),
        ({"image_embeddings": np.ones((0, 2)), "image_id": np.ones(0, int)}, "at least one row"),
        ({"image_id": np.array([0, 1, 2])}, r"image_id: shape \(3,\)"),
        ({"image_id": np.array([0.0, 1.0])}, "expected integers"),
        ({"text_image_id": np.array([0, 7])}, "text_image_id 7 is not in image_id"),
        ({"text_image_id": np.array([1, 1])}, "image_id 0 has no caption"),
    ],
)
def test_broken_input_is_named(change: dict[str, np.ndarray], message: str) -> None:
    arguments = {
        "image_embeddings": np.eye(2),
        "text_embeddings": np.eye(2),
        "image_id": np.array([0, 1]),
        "text_image_id": np.array([0, 1]),
    }
    with pytest.raises(ZeroVLError, match=message):
        retrieval_metrics(**(arguments | change))
