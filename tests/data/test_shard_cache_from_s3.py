"""The cache of whole shards that come from S3: over several connections, cut off, interrupted, away."""

import hashlib
import os
import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import s3
from tests.support.cached_shards import names, read_all, shards_of
from tests.support.flaky_proxy import CUT, DROP, UNAVAILABLE, FlakyProxy
from tests.support.shard_fixture import Written
from zerovl.data import s3_shards
from zerovl.data.cached_shards import CachedRanges
from zerovl.data.manifest import ShardInfo
from zerovl.data.s3_shards import Outages, S3Ranges, S3Shards
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.s3 import Patience


def uploaded(written: Written, bucket: str) -> str:
    for shard in shards_of(written):
        s3.client().upload_file(str(written.shards / shard.path), bucket, f"some/prefix/{shard.path}")
    return f"s3://{bucket}/some/prefix"


@pytest.mark.parametrize(
    "faults", [[], ["", "", CUT] * 12, [UNAVAILABLE, DROP] * 6], ids=["well", "one in three is cut", "away"]
)
def test_whole_shards_from_s3_over_several_connections(
    faults: list[str],
    written: Written,
    moto_bucket: str,
    moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, shards = uploaded(written, moto_bucket), shards_of(written)
    monkeypatch.setattr(s3_shards, "PART", 4096)
    proxy = FlakyProxy(moto_url, "GET", faults)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    try:
        ranges = S3Ranges(root, 3, Outages(60, pause=0.01), Patience(1, 5, 5))
        cache = ShardCache(tmp_path / "cache", 1 << 30, S3Shards(root, 3, ranges))
        reader = ShardReader(root, CachedRanges(cache, shards, ranges))
        assert read_all(written, reader) == read_all(written, ShardReader(written.shards))
        if not faults:
            assert proxy.passed == sum(-(-shard.bytes // 4096) for shard in shards)
        with pytest.raises(ZeroVLError, match="its bytes have sha256"):  # longer than the object: it was cut off there
            cache.fetch(replace(shards[0], bytes=shards[0].bytes + 512, sha256="0" * 64))
        with pytest.raises(FileNotFoundError):
            cache.fetch(replace(shards[0], path="web/train/000099.tar", sha256="1" * 64))
        reader.close()
    finally:
        proxy.close()


class Backwards(S3Ranges):
    """A server whose later parts come first."""

    def __init__(self, content: bytes) -> None:
        super().__init__("s3://bucket")
        self.content, self.came = content, [threading.Event() for _ in range(-(-len(content) // 512))]

    def open(self) -> None:
        pass

    def read(self, path: str, offset: int, size: int) -> bytes:
        part = offset // 512
        if part + 1 < len(self.came):
            assert self.came[part + 1].wait(60)
        return self.content[offset : offset + size]


def test_the_digest_of_parts_that_come_in_any_order_is_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(0).randbytes(4 * 512 + 100)
    ranges, pwrite = Backwards(content), os.pwrite

    def written(descriptor: int, data: bytes, offset: int) -> int:
        size = pwrite(descriptor, data, offset)
        ranges.came[offset // 512].set()
        return size

    monkeypatch.setattr(s3_shards, "PART", 512)
    monkeypatch.setattr(os, "pwrite", written)
    shard = ShardInfo("web/train/000000.tar", 1, len(content), hashlib.sha256(content).hexdigest())
    with open(tmp_path / "shard", "w+b") as file:
        assert S3Shards("s3://bucket", 5, ranges).fetch(shard, file.fileno()) == shard.sha256
        assert file.read() == content
        ranges.content = content[:-1]
        assert (
            S3Shards("s3://bucket", 5, ranges).fetch(shard, file.fileno()) == hashlib.sha256(content[:-1]).hexdigest()
        )


class Stuck(S3Ranges):
    """A server whose answers come once they are let go."""

    def __init__(self) -> None:
        super().__init__("s3://bucket")
        self.asked, self.go, self.given = threading.Barrier(3), threading.Event(), list[int]()

    def open(self) -> None:
        pass

    def read(self, path: str, offset: int, size: int) -> bytes:
        self.asked.wait(60)
        self.go.wait(60)
        self.given.append(offset)
        return b"x" * size


def test_an_interrupted_fetch_writes_nothing_into_what_is_opened_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges, join = Stuck(), threading.Thread.join

    def interrupted(_thread: threading.Thread) -> None:
        ranges.asked.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(s3_shards, "PART", 512)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    cache, before = ShardCache(tmp_path / "cache", 1 << 30, S3Shards("s3://bucket", 2, ranges)), threading.enumerate()
    with pytest.raises(KeyboardInterrupt):
        cache.fetch(ShardInfo("web/train/000000.tar", 1, 2048, "0" * 64))
    others = [open(tmp_path / f"{number}", "w+b") for number in range(8)]  # noqa: SIM115 - they get the free numbers
    ranges.go.set()
    for thread in set(threading.enumerate()) - set(before):
        join(thread, 60)
    assert [os.fstat(file.fileno()).st_size for file in others] == [0] * 8
    assert (sorted(ranges.given), names(cache)) == ([0, 512], set())  # the parts that they were at, and no other
    for file in others:
        file.close()


def test_a_server_that_stays_away_is_named(clean_aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ranges = S3Ranges("s3://bucket/prefix", 1, Outages(0.0, pause=0.01), Patience(1, 5, 5))
    cache = ShardCache(tmp_path / "cache", 1 << 30, S3Shards("s3://bucket/prefix", 1, ranges))
    with pytest.raises(OSError, match=r"no answer from http://127\.0\.0\.1:9"):
        cache.fetch(ShardInfo("web/train/000000.tar", 1, 1024, "0" * 64))
    assert names(cache) == set()
