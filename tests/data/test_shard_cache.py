"""The cache of whole shards: fetched once, verified, bounded, whole or absent whatever happens."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.cached_shards import cache_of, names, read_all, shards_of, through
from tests.support.paths import ROOT
from tests.support.shard_copies import Copies
from tests.support.shard_fixture import Written
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import NoRoomError, ShardCache
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.files import locked_if_free, sha256_file


def test_each_shard_is_fetched_once_and_read_as_where_it_lies(written: Written, copies: Copies, tmp_path: Path) -> None:
    cache, expected = cache_of(copies, tmp_path), read_all(written, ShardReader(written.shards))
    reader = through(cache, written)
    assert read_all(written, reader) == expected
    assert read_all(written, pickle.loads(pickle.dumps(reader))) == expected  # another process, or after a restart
    assert copies.fetched == [shard.path for shard in shards_of(written)]
    assert names(cache) == {cache.file_name(shard) for shard in shards_of(written)}
    assert cache.present(shards_of(written)) == sum(shard.bytes for shard in shards_of(written))
    with pytest.raises(ZeroVLError, match="no such shard"):
        reader.read("web/train/000099.tar", 0, 512)


def test_what_was_wanted_longest_ago_goes_first(written: Written, copies: Copies, tmp_path: Path) -> None:
    cache, shards = cache_of(copies, tmp_path, shards=3.5), shards_of(written)
    for time, shard in enumerate(shards[:3]):
        assert cache.fetch(shard)
        os.utime(cache.folder / cache.file_name(shard), (time, time))
    assert cache.use(shards[0])
    assert cache.fetch(shards[3], wanted={shards[1].sha256})
    assert names(cache) == {cache.file_name(shards[i]) for i in (0, 1, 3)}
    with pytest.raises(NoRoomError, match="no room"):
        cache.fetch(shards[4], wanted={shard.sha256 for shard in shards})
    assert names(cache) == {cache.file_name(shards[i]) for i in (0, 1, 3)}


def test_a_cache_that_is_far_too_small_still_reads_everything(
    written: Written, copies: Copies, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read_all(written, ShardReader(written.shards))
    assert read_all(written, through(cache_of(copies, tmp_path, shards=1.5), written)) == expected
    assert read_all(written, through(cache_of(copies, tmp_path, shards=0.5), written)) == expected
    assert caplog.text.count("by a request each, which is slow") == 1
    open_ = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _exists(name)]
    assert sum("(deleted)" in path and str(tmp_path) in path for path in open_) <= 1


def _exists(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def test_a_full_disk_makes_room_and_then_goes_on_without(
    written: Written, copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, shards, whole = cache_of(copies, tmp_path), shards_of(written), os.posix_fallocate

    def two_fit(descriptor: int, offset: int, length: int) -> None:
        if len([name for name in os.listdir(cache.folder) if name.endswith(".tar")]) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", two_fit)
    assert all(cache.fetch(shard) for shard in shards)
    assert len(names(cache)) == 2

    monkeypatch.setattr(os, "posix_fallocate", whole)
    spare = SimpleNamespace(free=shards[0].bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: spare)
    with pytest.raises(NoRoomError, match="of the disk would stay free"):
        cache.fetch(shards[0])
    spare.free = 1 << 40

    def nothing_fits(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", nothing_fits)
    with pytest.raises(NoRoomError, match="No space left"):
        cache.fetch(shards[0])
    assert names(cache) == set()
    assert read_all(written, through(cache, written)) == read_all(written, ShardReader(written.shards))


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support.shard_copies import Copies
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import ShardCache

class Halves(Copies):
    def fetch(self, shard, descriptor):
        os.pwrite(descriptor, bytes(512), 0)
        os.kill(os.getpid(), signal.SIGKILL)

root, folder, path, size, digest = sys.argv[1:]
cache = ShardCache(Path(folder), 1 << 30, Halves(Path(root), Path(folder + ".log")))
cache.fetch(ShardInfo(path, 7, int(size), digest))
"""


def test_a_fetch_that_was_killed_leaves_nothing_that_counts(written: Written, copies: Copies, tmp_path: Path) -> None:
    cache, (first, second, *_) = cache_of(copies, tmp_path), shards_of(written)
    for shard in (first, second):
        arguments = [str(written.shards), str(cache.folder), shard.path, str(shard.bytes), shard.sha256]
        child = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, timeout=120)
        assert child.returncode == -signal.SIGKILL
        assert f"{shard.sha256}.part" in names(cache)
    assert not cache.use(first)
    assert cache.fetch(first)
    assert names(cache) == {cache.file_name(first)}  # what was left of the other one is gone too
    assert sha256_file(cache.folder / cache.file_name(first)) == first.sha256


def test_what_was_left_goes_while_its_lock_is_held(
    written: Written, copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the lock of such a file is never given one that is about to lose its name."""
    cache, (first, second, *_) = cache_of(copies, tmp_path), shards_of(written)
    cache.folder.mkdir()
    left = cache.folder / f"{second.sha256}.part"
    left.write_bytes(bytes(512))
    free: list[bool] = []
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            with locked_if_free(path) as ours:
                free.append(ours)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    assert cache.fetch(first)
    assert (free, names(cache)) == ([False], {cache.file_name(first)})


FETCHER = """
import sys
from pathlib import Path
from tests.support.shard_copies import Copies
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import ShardCache

root, folder, log, path, size, digest = sys.argv[1:]
assert ShardCache(Path(folder), 1 << 30, Copies(Path(root), Path(log))).fetch(ShardInfo(path, 7, int(size), digest))
"""


def test_processes_that_want_the_same_shard_fetch_it_once(written: Written, copies: Copies, tmp_path: Path) -> None:
    shard = shards_of(written)[0]
    arguments = [str(written.shards), str(tmp_path / "cache"), str(copies.log)]
    arguments += [shard.path, str(shard.bytes), shard.sha256]
    children = [subprocess.Popen([sys.executable, "-c", FETCHER, *arguments], cwd=ROOT) for _ in range(3)]
    assert [child.wait(120) for child in children] == [0, 0, 0]
    assert copies.fetched == [shard.path]


def test_who_does_not_wait_is_told_that_another_fetches(written: Written, copies: Copies, tmp_path: Path) -> None:
    cache, shard = cache_of(copies, tmp_path), shards_of(written)[0]
    told: list[bool] = []

    class Asking(Copies):
        def fetch(self, shard: ShardInfo, descriptor: int) -> str:
            told.append(cache.fetch(shard, wait=False))
            return super().fetch(shard, descriptor)

    assert ShardCache(cache.folder, cache.limit, Asking(copies.root, copies.log)).fetch(shard)
    assert told == [False]
    assert cache.fetch(shard, wait=False)
    assert copies.fetched == [shard.path]


def test_other_bytes_than_the_manifests_are_refused(written: Written, copies: Copies, tmp_path: Path) -> None:
    cache, shard = cache_of(copies, tmp_path), replace(shards_of(written)[0], sha256="0" * 64)
    with pytest.raises(ZeroVLError, match=r"000000\.tar: its bytes have sha256 .*, in the manifest it is 000000000000"):
        cache.fetch(shard)
    assert names(cache) == set()


def test_a_copy_that_was_damaged_later_is_fetched_again(written: Written, copies: Copies, tmp_path: Path) -> None:
    cache, shard = cache_of(copies, tmp_path), shards_of(written)[0]
    expected = read_all(written, ShardReader(written.shards))
    cache.fetch(shard)
    (cache.folder / cache.file_name(shard)).write_bytes(bytes(shard.bytes))
    reader = through(cache, written)
    assert read_all(written, reader) == expected
    assert copies.fetched.count(shard.path) == 2
    (written.shards / shard.path).write_bytes(bytes(shard.bytes))  # where it comes from it is damaged too
    (cache.folder / cache.file_name(shard)).write_bytes(bytes(shard.bytes))
    reader.close()
    with pytest.raises(ZeroVLError, match="its bytes have sha256"):
        read_all(written, reader)
