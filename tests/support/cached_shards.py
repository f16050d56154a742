"""Shards that are read through the cache of whole shards."""

from __future__ import annotations

from pathlib import Path

from tests.support.shard_copies import Copies
from tests.support.shard_fixture import Written
from zerovl.data.cached_shards import CachedRanges
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import FileRanges, Sample, ShardReader, locate


def shards_of(written: Written) -> tuple[ShardInfo, ...]:
    return written.manifest.splits["web", "train"].shards


def cache_of(copies: Copies, tmp_path: Path, shards: float = 100) -> ShardCache:
    """A cache with room for so many shards of the largest size."""
    largest = max(path.stat().st_size for path in copies.root.rglob("*.tar"))
    return ShardCache(tmp_path / "cache", int(shards * largest), copies)


def names(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir()}


def read_all(written: Written, reader: ShardReader) -> list[Sample]:
    index = written.manifest.index("web", "train")
    return [reader.read(*locate(written.manifest, record, "web", "train")) for record in index]


def through(cache: ShardCache, written: Written) -> ShardReader:
    return ShardReader(written.shards, CachedRanges(cache, shards_of(written), FileRanges(str(written.shards))))
