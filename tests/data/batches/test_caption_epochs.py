"""`train.epoch_of: captions`: each caption once an epoch with its picture, no two of a picture in a batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.loader_batches import BATCH, SIZES
from tests.support.shard_fixture import WordTokenizer, Written, captions_of, write
from zerovl.data.batches import visits
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.caption_rows import CaptionRows, OneEach, caption_rows, joined
from zerovl.data.batches.epochs import CaptionsInOrder, CaptionStream, EpochStream
from zerovl.data.batches.loader import train_batches
from zerovl.data.batches.sampling import DebiasedSampler, Sampler, ShuffledSampler, training_sampler
from zerovl.data.batches.sides import Pictures
from zerovl.data.batches.visits import EachCaption, EachPair, epoch_sizes, visits_of
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.params import AugmentParams, TrainParams


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Pairs of one, two or three captions each."""
    return write(tmp_path, SIZES)


def rows_of(counts: list[int]) -> CaptionRows:
    return CaptionRows(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def settings(**changes: Any) -> TrainParams:
    return TrainParams(**{"batch_size": BATCH, "epochs": 3.0, "epoch_of": "captions", "seed": 7} | changes)


def visited(sampler: Sampler, steps: range) -> list[tuple[str, int, int]]:
    """Source, pair and number of the caption."""
    found = []
    for step in steps:
        batch = sampler.batch(step)
        assert batch.captions is not None
        sources = (batch.sources[i] for i in batch.source_ids)
        found += list(zip(sources, batch.rows.tolist(), batch.captions.tolist(), strict=True))
    return found


COUNTS = {
    "five each": [5] * 40,
    "one to three": [1 + i % 3 for i in range(100)],
    "one has seven": [1] * 60 + [7] + [2] * 70,
    "one each": [1] * 50,
}


@pytest.mark.parametrize("kind", [CaptionStream, CaptionsInOrder])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("batch_size", [7, 16, 20])
def test_each_caption_once_an_epoch_and_no_pair_twice_in_a_batch(
    kind: type[CaptionStream], counts: list[int], batch_size: int
) -> None:
    captions = rows_of(counts)
    assert len(captions) // captions.most >= batch_size  # so it can be avoided
    stream = kind(captions, batch_size, "key")
    epochs = 6
    batches = [stream.batch(k) for k in range(epochs * len(captions) // batch_size)]
    for batch in batches:
        assert np.unique(captions.pairs_of(batch)).size == batch_size
    order = np.concatenate(batches)
    for epoch in range(epochs - 1):
        one = order[epoch * len(captions) : (epoch + 1) * len(captions)]
        np.testing.assert_array_equal(np.sort(one), np.arange(len(captions)))
    # Any batch, without those before it.
    for k in (3, 0, len(batches) - 1, len(batches) // 2):
        np.testing.assert_array_equal(kind(captions, batch_size, "key").batch(k), batches[k])


def test_where_a_pair_has_more_captions_than_an_epoch_has_batches_all_are_still_visited_once() -> None:
    captions = rows_of([1] * 12 + [30])
    stream = CaptionStream(captions, 10, "key")
    order = np.concatenate([stream.batch(k) for k in range(21)])
    for epoch in range(5):
        np.testing.assert_array_equal(np.sort(order[epoch * 42 : (epoch + 1) * 42]), np.arange(42))


def test_with_one_caption_a_pair_the_order_is_that_of_pairs() -> None:
    captions, pairs = CaptionStream(rows_of([1] * 50), 16, "key"), EpochStream(50, 16, "key")
    for k in range(20):
        np.testing.assert_array_equal(captions.batch(k), pairs.batch(k))


def test_the_captions_of_a_pair_are_numbered_from_one_that_is_drawn() -> None:
    captions = rows_of([5] * 400 + [2] * 100)
    pairs, numbers = captions.located(np.arange(len(captions)), "web")
    assert sorted(zip(pairs.tolist(), numbers.tolist(), strict=True)) == [
        (pair, number) for pair in range(500) for number in range(5 if pair < 400 else 2)
    ]
    firsts = np.bincount(numbers[captions.first[:400]], minlength=5)  # of what one lap visits
    assert firsts.min() > 50


def test_rows_are_counted_from_the_table_without_what_is_quarantined(written: Written) -> None:
    path = written.manifest.table_path("web", "train")
    rows = pq.read_table(path)
    broken = rows.slice(3, 1).to_pylist()[0] | {"error": "no picture", "shard": None}
    pq.write_table(
        pa.concat_tables([rows.slice(0, 9), pa.Table.from_pylist([broken], rows.schema), rows.slice(9)]), path
    )
    found = caption_rows(written.manifest, "web")
    assert np.diff(found.first).tolist() == [len(captions_of("web", row)) for row in range(SIZES["web"])]
    pq.write_table(rows.slice(1), path)
    with pytest.raises(ZeroVLError, match=r"web-train\.parquet: has 39 pairs .* the manifest 40 .*dvc repro"):
        caption_rows(written.manifest, "web")


@pytest.mark.parametrize("kind", ["shuffled", "sequential"])
def test_samplers_visit_every_caption_of_all_sources(written: Written, kind: str) -> None:
    expected = sorted(
        (name, row, number) for name, pairs in SIZES.items() for row in range(pairs) for number in range(1 + row % 3)
    )
    sampler = training_sampler(settings(sampling=kind), written.manifest)
    assert sampler.steps == round(3 * len(expected) / BATCH)
    order = visited(sampler, range(sampler.steps))
    for epoch in range(2):
        assert sorted(order[epoch * len(expected) : (epoch + 1) * len(expected)]) == expected
    for step in range(sampler.steps):
        batch = sampler.batch(step)
        assert len(set(zip(batch.source_ids.tolist(), batch.rows.tolist(), strict=True))) == BATCH
        for rank in range(2):
            part = batch.slice(rank, 2)
            assert part.captions is not None
            np.testing.assert_array_equal(part.captions, batch.captions[rank * 8 : rank * 8 + 8])  # type: ignore[index]


def test_a_debiased_batch_takes_a_source_by_its_captions() -> None:
    visits = EachCaption({"five": rows_of([5] * 40), "one": rows_of([1] * 40)})
    assert (visits.sizes, visits.pairs) == ({"five": 200, "one": 40}, {"five": 40, "one": 40})
    sampler = DebiasedSampler(visits, 16, 3000, 0)
    sources = [sampler.batch(step).source for step in range(3000)]
    assert sources.count("five") / 3000 == pytest.approx(5 / 6, abs=0.03)


def test_fewer_pairs_than_a_batch_are_refused_however_many_captions_they_have() -> None:
    visits = EachCaption({"few": rows_of([5] * 10)})
    with pytest.raises(ZeroVLError, match=r"few \(10 pairs\).*Set train\.batch_size to 10 or less"):
        DebiasedSampler(visits, 16, 5, 0)
    with pytest.raises(ZeroVLError, match="1 sources have 10 training pairs together"):
        ShuffledSampler(visits, 16, 5, 0)


def test_sizes_of_an_epoch(written: Written) -> None:
    captions = {name: sum(1 + row % 3 for row in range(pairs)) for name, pairs in SIZES.items()}
    assert epoch_sizes("captions", written.manifest) == dict(sorted(captions.items()))
    assert visits_of("captions", written.manifest).sizes == dict(sorted(captions.items()))
    assert epoch_sizes("pictures", written.manifest) == visits_of("pictures", written.manifest).pairs
    assert isinstance(visits_of("pictures", written.manifest), EachPair)
    with pytest.raises(ZeroVLError, match=r"train\.epoch_of 'words': unknown"):
        visits_of("words", written.manifest)
    whole = joined([caption_rows(written.manifest, name) for name in ("art", "web")])
    assert (whole.pairs, len(whole)) == (sum(SIZES.values()), sum(captions.values()))


def captions_seen(written: Written, **changes: Any) -> list[list[tuple[str, tuple[int, ...]]]]:
    """For each step, key and tokens of its pairs."""
    options: dict[str, Any] = {"start_step": 0, "workers": 0} | changes
    augment = AugmentParams(mask_probability=0.0)
    batches = train_batches(
        manifest=written.manifest,
        shards=ShardReader(written.shards),
        sampler=training_sampler(settings(sampling="shuffled"), written.manifest),
        tokenize=WordTokenizer(),
        images=Pictures(TrainTransform(16, augment)),
        augment=augment,
        micro_batch=8,
        seed=7,
        rank=0,
        world_size=1,
        **options,
    )
    with batches:
        return [
            [
                (key, tuple(ids[mask == 1].tolist()))
                for part in step.micro_batches
                for key, ids, mask in zip(part.keys, part.input_ids, part.attention_mask, strict=True)
            ]
            for step in batches
        ]


def test_the_loader_reads_the_captions_that_the_sampler_names(written: Written) -> None:
    steps = captions_seen(written)
    seen = [pair for step in steps for pair in step]
    expected = [
        (f"{name}-{row}", tuple(WordTokenizer()([caption])[0][0].tolist()))
        for name, pairs in SIZES.items()
        for row in range(pairs)
        for caption in captions_of(name, row)
    ]
    assert sorted(seen[: len(expected)]) == sorted(expected)
    assert captions_seen(written, workers=2) == steps
    for start in (1, len(steps) - 1):
        assert captions_seen(written, start_step=start) == steps[start:]


@pytest.mark.parametrize("shuffle", ["global", "blocks"])
@pytest.mark.parametrize("sampling", ["debiased", "shuffled", "sequential"])
def test_with_one_caption_each_nothing_is_stored_and_the_batches_are_the_same(
    sampling: str, shuffle: str, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = {key: replace(info, captions=info.pairs) for key, info in written.manifest.splits.items()}
    manifest, train = replace(written.manifest, splits=split), settings(sampling=sampling, shuffle=shuffle)
    found = training_sampler(train, manifest)
    listed = {name: rows_of([1] * manifest.pairs(name, "train")) for name in SIZES}
    monkeypatch.setattr(visits, "caption_rows", lambda _manifest, name: listed[name])
    expected = training_sampler(train, manifest)
    assert caption_rows(manifest, "web") == OneEach(SIZES["web"])
    for step in range(expected.steps):
        batches = found.batch(step), expected.batch(step)
        for mine, reference in zip(*([b.rows, b.captions, b.source_ids] for b in batches), strict=True):
            np.testing.assert_array_equal(mine, reference)


def test_sources_of_one_caption_and_of_several_go_together() -> None:
    several = rows_of([1, 3, 2])
    assert joined([OneEach(2), OneEach(3)]) == OneEach(5)
    both = joined([OneEach(2), several])
    np.testing.assert_array_equal(both.first_of(np.arange(6)), [0, 1, 2, 3, 6, 8])
