"""Shards are fetched before they are needed, each once a node, and the batches are those of local shards."""

import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data.batches.test_loader import all_rows
from tests.support.loader_batches import BATCH, SIZES, batches_of
from tests.support.shard_copies import Copies
from tests.support.shard_fixture import Written, write
from zerovl.data.batches.ahead import ShardsAhead, Window
from zerovl.data.batches.sampling import Sampler, training_sampler
from zerovl.data.cached_shards import CachedRanges
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import FileRanges, ShardReader
from zerovl.params import TrainParams


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Ten shards of about equal size."""
    return write(tmp_path, SIZES)


def sampler_of(written: Written, **changes: Any) -> Sampler:
    usual = {"batch_size": BATCH, "epochs": 3.0, "seed": 7, "shuffle": "blocks", "block_shards": 2}
    return training_sampler(TrainParams(**usual | changes), written.manifest)


def all_shards(written: Written) -> list[ShardInfo]:
    return [shard for source in ("art", "web") for shard in written.manifest.splits[source, "train"].shards]


def needed(written: Written, sampler: Sampler, step: int) -> set[str]:
    """The slow reference: paths of a step's shards, row by row from the index."""
    batch = sampler.batch(step)
    found = set()
    for number, row in zip(batch.source_ids, batch.rows, strict=True):
        source = batch.sources[number]
        record = written.manifest.index(source, "train")[row]
        found.add(written.manifest.splits[source, "train"].shards[record["shard"]].path)
    return found


@pytest.mark.parametrize("sampling", ["debiased", "shuffled", "sequential"])
def test_a_window_has_what_coming_steps_need_in_their_order(sampling: str, written: Written) -> None:
    sampler, most = sampler_of(written, sampling=sampling), 5.5 * max(shard.bytes for shard in all_shards(written))
    window = Window(sampler, written.manifest, most)
    for step in [*range(sampler.steps), 2, 1]:  # also back, where a slower worker comes
        window.move(step)
        shards = list(window.shards())
        assert sum(shard.bytes for shard in shards) <= most
        expected: list[set[str]] = []
        for coming in range(step, sampler.steps):
            expected.append(needed(written, sampler, coming))
        paths = [shard.path for shard in shards]
        assert len(set(paths)) == len(paths)
        left = paths
        for of_step in expected:  # each step's new ones come before those of the next
            new = of_step - set(paths[: len(paths) - len(left)])
            head, left = left[: len(new)], left[len(new) :]
            assert set(head) <= new
            if not left:
                break
        assert len(paths) >= min(5, len(set().union(*expected)))


def test_with_room_for_all_a_window_ends_with_the_last_shard(written: Written) -> None:
    window = Window(sampler_of(written, shuffle="global"), written.manifest, 1 << 40)
    window.move(0)
    assert {shard.path for shard in window.shards()} == {shard.path for shard in all_shards(written)}


def streamed(written: Written, copies: Copies, folder: Path, shards: float, **changes: Any) -> dict[str, Any]:
    """What `batches_of` needs to read through a cache with room for so many shards."""
    sampler = sampler_of(written, **changes)
    cache = ShardCache(folder, int(shards * max(shard.bytes for shard in all_shards(written))), copies)
    ranges = CachedRanges(cache, all_shards(written), FileRanges(str(written.shards)))
    return {
        "shards": ShardReader(written.shards, ranges),
        "sampler": sampler,
        "ahead": ShardsAhead(sampler, written.manifest, cache),
    }


@pytest.mark.parametrize(("workers", "shards"), [(0, 8.0), (2, 20.0), (0, 1.5)])
def test_batches_are_those_of_local_shards(workers: int, shards: float, written: Written, tmp_path: Path) -> None:
    copies = Copies(written.shards, tmp_path / "fetched")
    found = all_rows(batches_of(written, workers=workers, **streamed(written, copies, tmp_path / "cache", shards)))
    assert found == all_rows(batches_of(written, sampler=sampler_of(written)))
    if shards == 20.0:  # two workers and two threads that look ahead: each shard once
        assert sorted(copies.fetched) == sorted(shard.path for shard in all_shards(written))


def test_shards_are_there_before_anyone_reads_them(written: Written, tmp_path: Path) -> None:
    copies = Copies(written.shards, tmp_path / "fetched")
    parts = streamed(written, copies, tmp_path / "cache", 20.0)
    ahead: ShardsAhead = pickle.loads(pickle.dumps(parts["ahead"]))
    ahead(0)
    deadline = time.monotonic() + 60
    while len(copies.fetched) < len(all_shards(written)) and time.monotonic() < deadline:
        time.sleep(0.01)
    ahead.close()
    steps = [needed(written, parts["sampler"], step) for step in range(parts["sampler"].steps)]
    order = [next(step for step, paths in enumerate(steps) if path in paths) for path in copies.fetched]
    assert order == sorted(order)  # those that are needed first were fetched first
    assert len(order) == len(all_shards(written))
