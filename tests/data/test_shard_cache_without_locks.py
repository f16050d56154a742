"""The cache of whole shards on a file system without flock(2): each fetch has its own file, and shards are whole."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.cached_shards import cache_of, names, read_all, shards_of, through
from tests.support.paths import ROOT
from tests.support.shard_copies import Copies
from tests.support.shard_fixture import Written
from zerovl.data import shard_cache
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import NoRoomError, ShardCache
from zerovl.data.shard_parts import LEFT_AFTER, LockedParts, OwnParts, parts_of
from zerovl.data.shards import ShardReader
from zerovl.files import sha256_file

# Reads all shards several times through a cache that has room for two of them.
READER = """
import errno, fcntl, os, sys
from pathlib import Path

def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.flock = flock
from tests.support.cached_shards import cache_of, read_all, through
from tests.support.shard_copies import Copies
from tests.support.shard_fixture import Written
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader

root, log = map(Path, sys.argv[1:])
shards = root / "shards"
written = Written(Manifest.load(root / "manifest"), shards)
expected = read_all(written, ShardReader(shards))
for _ in range(5):
    assert read_all(written, through(cache_of(Copies(shards, log), root, shards=2.5), written)) == expected
"""


@pytest.fixture(autouse=True)
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _operation: int) -> NoReturn:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", flock)


class Meanwhile(Copies):
    """Lets another process want the shard in the middle of its fetch."""

    def __init__(self, copies: Copies, other: ShardCache) -> None:
        super().__init__(copies.root, copies.log)
        self.other = other
        self.answers: list[bool] = []

    def fetch(self, shard: ShardInfo, descriptor: int) -> str:
        self.answers += [self.other.fetch(shard, wait=False), self.other.fetch(shard)]
        return super().fetch(shard, descriptor)


def test_two_that_want_a_shard_at_once_both_fetch_it(written: Written, copies: Copies, tmp_path: Path) -> None:
    shard, source = shards_of(written)[0], Meanwhile(copies, cache_of(copies, tmp_path))
    cache = ShardCache(source.other.folder, source.other.limit, source)
    assert cache.fetch(shard)
    assert source.answers == [False, True]  # who looks ahead leaves it to the other one, who needs it fetches it
    assert copies.fetched == [shard.path] * 2
    assert names(cache) == {cache.file_name(shard)}
    assert sha256_file(cache.folder / cache.file_name(shard)) == shard.sha256


def test_processes_that_share_a_cache_read_what_is_there(written: Written, copies: Copies, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", READER, str(tmp_path), str(copies.log)]
    children = [subprocess.Popen(arguments, cwd=ROOT) for _ in range(2)]
    assert [child.wait(300) for child in children] == [0, 0]
    cache = cache_of(copies, tmp_path)
    assert all(name.endswith(".tar") for name in names(cache))
    assert {sha256_file(cache.folder / name) for name in names(cache)} <= {its.sha256 for its in shards_of(written)}


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_what_was_left_is_known_by_its_age(
    ahead: float, written: Written, copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock of this machine says, of which that of the file system's server may differ."""
    clock = time.time
    cache, shards = cache_of(copies, tmp_path), shards_of(written)
    cache.folder.mkdir()
    on_its_way, left = cache.folder / f"{shards[1].sha256}.0a.part", cache.folder / f"{shards[2].sha256}.0b.part"
    for path in (on_its_way, left):
        path.write_bytes(bytes(512))
    os.utime(left, (clock() - 2 * LEFT_AFTER,) * 2)
    monkeypatch.setattr(time, "time", lambda: clock() + ahead)
    assert not cache.fetch(shards[1], wait=False)
    assert cache.fetch(shards[0])
    assert names(cache) == {cache.file_name(shards[0]), on_its_way.name}


def test_a_fetch_that_was_taken_for_killed_goes_on_without_the_cache(
    written: Written, copies: Copies, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stopped(Copies):
        def fetch(self, shard: ShardInfo, descriptor: int) -> str:
            found = super().fetch(shard, descriptor)
            for path in (tmp_path / "cache").glob("*.part"):
                path.unlink()
            return found

    cache = cache_of(Stopped(copies.root, copies.log), tmp_path)
    with pytest.raises(NoRoomError, match="took its fetch for a killed one"):
        cache.fetch(shards_of(written)[0])
    assert read_all(written, through(cache, written)) == read_all(written, ShardReader(written.shards))
    assert names(cache) == set()
    assert caplog.text.count("took its fetch for a killed one") == 1


def test_a_fetch_whose_file_was_removed_before_it_is_renamed_is_tried_again(
    written: Written, copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed, rename = [], os.rename

    def removed_before(path: Path, target: Path) -> None:
        if not removed:
            removed.append(path.name)
            path.unlink()
        rename(path, target)

    monkeypatch.setattr(os, "rename", removed_before)
    cache, shard = cache_of(copies, tmp_path), shards_of(written)[0]
    assert cache.fetch(shard)
    assert len(removed) == 1
    assert copies.fetched == [shard.path] * 2
    assert names(cache) == {cache.file_name(shard)}


def test_locks_are_looked_for_once(
    written: Written, copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(shard_cache, "parts_of", lambda folder: asked.append(folder) or parts_of(folder))
    cache = cache_of(copies, tmp_path)
    assert all(cache.fetch(shard) for shard in shards_of(written))
    assert len(names(cache)) == len(shards_of(written)) > 1
    assert asked == [cache.folder]


def test_what_differs_is_said_where_there_are_no_locks_alone(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(copies, tmp_path)
    said = cache.missing_locks()
    assert said.startswith(f"machine.shard_cache.folder {cache.folder}: its file system has no locks (Operation not s")
    assert isinstance(parts_of(cache.folder), OwnParts)
    monkeypatch.undo()
    assert cache.missing_locks() == ""
    assert isinstance(parts_of(cache.folder), LockedParts)
