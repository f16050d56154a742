"""Encoding a pool and scoring it: sources apart, ids of two sources apart, figures by query."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.embeddings import ROUNDING, assert_same_embeddings
from tests.support.fake_world import FakeEncoder, World
from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import Clusters, paired_difference
from zerovl.evaluation.metrics import HEADLINE, OVERALL, RECALLS
from zerovl.evaluation.query_ranks import clusters_of, read_queries
from zerovl.evaluation.retrieval import retrieval_metrics
from zerovl.evaluation.scores import by_source, score, table, write_queries


def test_pool_keeps_the_order_and_reads_each_picture_once(world: World) -> None:
    encoder = FakeEncoder()
    pool, (embeddings,) = world.encoded(encoder)
    rows = [(source, row) for source, samples in world.samples.items() for row in range(len(samples))]
    assert encoder.encoded_pictures == len(rows) == len(pool.keys)
    assert [(pool.sources[s], int(r)) for s, r in zip(pool.image_source, pool.image_row, strict=True)] == rows
    texts = [text for source, row in rows for text in world.samples[source][row][1]]
    assert list(pool.captions) == texts
    assert_same_embeddings(embeddings.text, encoder.encode_text(texts))
    assert [pool.keys[image].split("-")[1] for image in pool.caption_image] == [
        str(world.samples[source][row][2]) for source, row in rows for _ in world.samples[source][row][1]
    ]


def test_batch_size_changes_nothing(world: World) -> None:
    one, (small,) = world.encoded(FakeEncoder(), size=1)
    other, (large,) = world.encoded(FakeEncoder(), size=100)
    assert one.keys == other.keys
    assert_same_embeddings(small.image, large.image)
    assert_same_embeddings(small.text, large.text)


def test_what_counts_as_rounding_is_far_below_what_tells_two_rows_apart(world: World) -> None:
    """Else `assert_same_embeddings` would let another picture, another caption or another order through."""
    _, (embeddings,) = world.encoded(FakeEncoder())
    for rows in (embeddings.image, embeddings.text.unique(dim=0)):
        farthest = (rows[:, None] - rows[None]).abs().amax(-1)  # (n, n) largest difference of a coordinate
        farthest.fill_diagonal_(torch.inf)
        assert farthest.min() > 20 * ROUNDING
        with pytest.raises(AssertionError, match="not close"):
            assert_same_embeddings(rows.roll(1, 0), rows)


def test_equal_captions_have_bit_equal_embeddings(world: World) -> None:
    """So that they tie, whatever a batch rounds to."""
    texts = [text for samples in world.samples.values() for _, captions, _ in samples for text in captions]
    for size in (1, 5, 100):
        pool, (embeddings,) = world.encoded(FakeEncoder(), size=size)
        assert list(pool.captions) == texts
        assert len(embeddings.text.unique(dim=0)) == len(set(texts)) < len(texts)


def test_equal_ids_of_two_sources_are_two_pictures(world: World) -> None:
    pool, (embeddings,) = world.encoded(FakeEncoder())
    scores = score(pool, embeddings, embeddings, chunk=3, resamples=20, seed=0)
    found = table(pool, scores, 20, 0).to_json()
    assert found["overall"]["images"] == 28
    assert {name: block["images"] for name, block in found["sources"].items()} == {"alpha": 14, "beta": 14}


def test_blocks_equal_direct_retrieval(world: World) -> None:
    pool, (trained, untrained) = world.encoded(FakeEncoder(), FakeEncoder(seed=1, blind=True))
    scores = score(pool, trained, untrained, chunk=4, resamples=50, seed=0)
    block = table(pool, scores, 50, 0).to_json()["sources"]["beta"]
    samples = world.samples["beta"]
    text_id = [image_id for _, texts, image_id in samples for _ in texts]
    direct = retrieval_metrics(trained.image[14:], trained.text[-len(text_id) :], range(14), text_id)
    assert {name: block[name] for name in RECALLS} == {name: round(direct.metrics[name], 4) for name in RECALLS}
    assert block["captions"] == len(text_id)
    assert block[HEADLINE.name] == round(sum(direct.metrics[name] for name in RECALLS), 4)
    assert block["chance_rsum"] == round(direct.chance["rsum"], 4)
    assert block["rsum_low"] < block["rsum"] < block["rsum_high"]
    assert block["rsum"] > block["untrained_rsum"] > 0
    assert block["rsum_over_untrained"] == pytest.approx(block["rsum"] / block["untrained_rsum"], rel=1e-4)


def test_the_mean_over_sources_and_the_pool(world: World) -> None:
    pool, (trained, untrained) = world.encoded(FakeEncoder(), FakeEncoder(seed=1, blind=True))
    scores = score(pool, trained, untrained, chunk=100, resamples=50, seed=0)
    found = table(pool, scores, 50, 0).to_json()
    assert list(found) == ["mean", "overall", "sources"]
    mean, sources = found["mean"], found["sources"].values()
    for name in (*RECALLS, "rsum", "untrained_rsum", "chance_rsum"):
        assert mean[name] == pytest.approx(np.mean([block[name] for block in sources]), abs=1e-3)
    assert (mean["images"], mean["captions"]) == (28, sum(block["captions"] for block in sources))
    assert mean["rsum_low"] < mean["rsum"] < mean["rsum_high"]
    assert mean["chance_rsum"] > found["overall"]["chance_rsum"]  # half as many candidates


def test_with_one_source_mean_and_pool_are_the_same(world: World) -> None:
    del world.samples["beta"]
    pool, (trained, untrained) = world.encoded(FakeEncoder(), FakeEncoder(seed=1, blind=True))
    found = table(pool, score(pool, trained, untrained, 100, 50, 0), 50, 0).to_json()
    assert found["mean"] == found["overall"] == found["sources"]["alpha"]


def test_queries_are_enough_for_a_paired_comparison(world: World, tmp_path) -> None:
    pool, (trained, untrained) = world.encoded(FakeEncoder(), FakeEncoder(seed=1, blind=True))
    ours, theirs = (score(pool, a, b, 100, 20, 0) for a, b in ((trained, untrained), (untrained, trained)))
    write_queries(tmp_path / "ours.parquet", pool, ours)
    write_queries(tmp_path / "theirs.parquet", pool, theirs)
    candidate, holder = (clusters_of(read_queries(tmp_path / f"{name}.parquet")) for name in ("ours", "theirs"))
    assert list(candidate) == ["alpha", "beta"]
    ours_by, theirs_by = by_source(pool, ours), by_source(pool, theirs)
    for name, clusters in candidate.items():
        assert clusters.rsum() == pytest.approx(ours_by[name].result.rsum)
        difference = paired_difference(clusters, holder[name], 100, seed=0)
        assert difference.value == pytest.approx(ours_by[name].result.rsum - theirs_by[name].result.rsum)
        direct = Clusters.of(ours_by[name].result)
        assert sorted(clusters.captions) == sorted(direct.captions)
    queries = pq.read_table(tmp_path / "ours.parquet").to_pylist()
    text_rows = [row for row in queries if row["pool"] == OVERALL and row["direction"] == "t2i"]
    assert [row["caption"] for row in text_rows[:6]] == [0, 0, 1, 0, 1, 2]
    assert np.mean([row["r1"] for row in text_rows]) * 100 == pytest.approx(ours[OVERALL].result.metrics["t2i_r1"])


def test_a_damaged_table_of_queries_is_named(tmp_path) -> None:
    with pytest.raises(ZeroVLError, match=r"nothing\.parquet: no such file"):
        read_queries(tmp_path / "nothing.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ZeroVLError, match=r"broken\.parquet: not a table of queries"):
        read_queries(tmp_path / "broken.parquet")
