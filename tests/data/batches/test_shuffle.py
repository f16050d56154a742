"""`train.shuffle: blocks`: shards in drawn order, shuffled in groups; each visit once, at any step, any sampling."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.loader_batches import BATCH, SIZES
from tests.support.shard_fixture import Written, captions_of, write
from zerovl.data.batches.caption_rows import CaptionRows
from zerovl.data.batches.epochs import CaptionStream, EpochStream
from zerovl.data.batches.permutation import Permutation
from zerovl.data.batches.sampling import Sampler, make_sampler, training_sampler
from zerovl.data.batches.shuffle import BlockPermutation, LapBlocks, shard_pairs, shuffle_by
from zerovl.data.manifest import Manifest, ShardInfo, SplitInfo
from zerovl.errors import ZeroVLError
from zerovl.params import TrainParams

COUNTS = {
    "even": [7] * 12,
    "last is short": [7, 7, 7, 7, 3],
    "uneven, some empty": [0, 5, 1, 0, 11, 2, 2, 0, 30, 1],
    "one shard": [9],
}


def listed(counts: list[int], group: int, *key: int | str) -> list[int]:
    """The slow reference: every shard's members in lists, groups of them laid together and shuffled as a whole."""
    starts = np.cumsum(counts) - counts
    shards = [list(range(start, start + count)) for start, count in zip(starts, counts, strict=True)]
    shuffled = [shards[i] for i in Permutation(len(shards), *key, "shards")(np.arange(len(shards)))]
    found: list[int] = []
    for number, begin in enumerate(range(0, len(shuffled), group)):
        together = [member for shard in shuffled[begin : begin + group] for member in shard]
        if together:
            inside = Permutation(len(together), *key, "group", number)(np.arange(len(together)))
            found += [together[i] for i in inside]
    return found


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("group", [1, 3, 50])
def test_the_order_is_that_of_explicit_lists(counts: list[int], group: int) -> None:
    order = BlockPermutation(np.array(counts), group, 5, "web", 0)
    expected = listed(counts, group, 5, "web", 0)
    assert sorted(expected) == list(range(sum(counts)))
    np.testing.assert_array_equal(order(np.arange(order.n)), expected)
    backwards = np.arange(order.n)[::-1]
    np.testing.assert_array_equal(order(backwards), expected[::-1])


@pytest.mark.parametrize(("n", "batch_size"), [(16, 8), (17, 8), (15, 8), (100, 8), (101, 64)])
def test_a_stream_visits_each_once_an_epoch_and_none_twice_a_batch(n: int, batch_size: int) -> None:
    shuffle = LapBlocks(np.minimum(np.arange(0, n + 6, 6), n), 2)
    stream = EpochStream(n, batch_size, "key", shuffle=shuffle)
    batches = [stream.batch(k) for k in range(8 * n // batch_size + 1)]
    assert all(np.unique(batch).size == batch_size for batch in batches)
    rows = np.concatenate(batches)
    for epoch in range(8):
        np.testing.assert_array_equal(np.sort(rows[epoch * n : (epoch + 1) * n]), np.arange(n))
    again = EpochStream(n, batch_size, "key", shuffle=shuffle)
    for k in np.random.default_rng(0).permutation(len(batches)):
        np.testing.assert_array_equal(again.batch(int(k)), batches[k])


def test_captions_come_once_and_no_two_of_a_picture_in_a_batch() -> None:
    counts = np.array([1 + i % 3 for i in range(90)])
    captions = CaptionRows(np.concatenate([[0], np.cumsum(counts)]))
    shuffle = LapBlocks(captions.first[np.arange(0, 91, 9)], 3)
    stream = CaptionStream(captions, 16, "key", shuffle=shuffle)
    batches = [stream.batch(k) for k in range(4 * len(captions) // 16 + 1)]
    assert all(np.unique(captions.pairs_of(batch)).size == 16 for batch in batches)
    rows = np.concatenate(batches)
    for epoch in range(4):
        part = rows[epoch * len(captions) : (epoch + 1) * len(captions)]
        np.testing.assert_array_equal(np.sort(part), np.arange(len(captions)))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Shards of seven pairs."""
    return write(tmp_path, SIZES)


def sampler(written: Written, **changes: Any) -> Sampler:
    usual = {"batch_size": BATCH, "epochs": 4.0, "seed": 7, "shuffle": "blocks", "block_shards": 2}
    return training_sampler(TrainParams(**usual | changes), written.manifest)


@pytest.mark.parametrize("sampling", ["debiased", "shuffled"])
@pytest.mark.parametrize("epoch_of", ["pictures", "captions"])
def test_both_samplings_visit_all_of_it_from_few_shards_at_a_time(
    sampling: str, epoch_of: str, written: Written
) -> None:
    blocks = sampler(written, sampling=sampling, epoch_of=epoch_of)
    first = {source: np.cumsum(shard_pairs(written.manifest, source)) for source in blocks.sources}
    visits = {source: sum(len(captions_of(source, n)) for n in range(size)) for source, size in SIZES.items()}
    of_source: dict[str, list[tuple[int, int]]] = {source: [] for source in SIZES}
    for step in range(blocks.steps):
        batch = blocks.batch(step)
        assert sampling == "shuffled" or batch.source != "mixed"
        numbers = batch.rows * 0 if batch.captions is None else batch.captions
        touched = set()
        for source_id, row, caption in zip(batch.source_ids, batch.rows.tolist(), numbers.tolist(), strict=True):
            source = batch.sources[source_id]
            of_source[source].append((row, caption))
            touched.add((source, int(np.searchsorted(first[source], row, side="right"))))
        # 16 pairs lie in three groups of two shards at most; laps of captions are shorter than that.
        assert epoch_of == "captions" or len(touched) <= 6
    if sampling == "debiased":
        for source, seen in of_source.items():
            expected = visits[source] if epoch_of == "captions" else SIZES[source]
            assert len(set(seen[:expected])) == min(expected, len(seen))
    else:
        everything = [(source, *visit) for source, seen in of_source.items() for visit in seen]
        assert len(set(everything)) == (sum(visits.values()) if epoch_of == "captions" else sum(SIZES.values()))


def test_the_default_is_the_order_of_before(written: Written) -> None:
    usual = training_sampler(TrainParams(batch_size=BATCH, epochs=3.0, seed=7), written.manifest)
    before = make_sampler("debiased", SIZES, BATCH, 3.0, 7)
    for step in range(usual.steps):
        np.testing.assert_array_equal(usual.batch(step).rows, before.batch(step).rows)
    assert any((sampler(written).batch(step).rows != before.batch(step).rows).any() for step in range(4))


def test_an_unknown_name_and_a_manifest_that_does_not_add_up(written: Written) -> None:
    with pytest.raises(ZeroVLError, match=r"train\.shuffle 'some': unknown; set it to global or blocks"):
        shuffle_by("some", 2, written.manifest)
    split = SplitInfo(9, 9, 0, (ShardInfo("web/train/000000.tar", 8, 1, ""),))
    with pytest.raises(ZeroVLError, match=r"shards of source web have 8 training pairs, its index 9; run `dvc repro"):
        shuffle_by("blocks", 2, Manifest(written.manifest.folder, {("web", "train"): split}))
