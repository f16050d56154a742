"""Places of a node that two users share: caches of shards and releases, leases, a run; the users are real ones."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.two_users import ANNA, BERT, GROUP, OTHER_GROUP, as_root, as_user, folder_of_the_group
from zerovl import gpu_leases, gpu_names, lease_files
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import ShardCache
from zerovl.data.shard_parts import LockedParts
from zerovl.errors import ZeroVLError
from zerovl.registry import cache
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.training.run_lock import locked

pytestmark = as_root
BYTES = 1000  # of a shard


@pytest.fixture
def place() -> Iterator[Path]:
    with folder_of_the_group("place") as folder:
        yield folder


def check(true: bool) -> None:
    """Assert, in a lambda."""
    assert true


class Source:
    """Shards of one byte each, many times; counts what is fetched."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def name(self, shard: ShardInfo) -> str:
        return shard.path

    def fetch(self, shard: ShardInfo, descriptor: int) -> str:
        self.fetched.append(shard.path)
        os.pwrite(descriptor, shard.path.encode() * BYTES, 0)
        return shard.sha256


def shard(letter: str) -> ShardInfo:
    return ShardInfo(letter, 1, BYTES, hashlib.sha256(letter.encode() * BYTES).hexdigest())


def fetched(folder: Path, letters: str) -> list[str]:
    """Want shards in a cache that has room for two of them; returns those that came from their source."""
    source = Source()
    shards = ShardCache(folder, 2 * BYTES, source)
    for letter in letters:
        assert shards.fetch(shard(letter))
        assert (folder / shards.file_name(shard(letter))).read_bytes() == letter.encode() * BYTES
    return source.fetched


def test_shards_that_one_fetched_are_read_and_removed_by_the_other(place: Path) -> None:
    folder = place / "shards"

    def anna() -> None:
        assert fetched(folder, "ab") == ["a", "b"]
        part = folder / f"{shard('c').sha256}.part"
        os.close(LockedParts(folder)._open(part))  # as a fetch that was killed leaves it

    def bert() -> None:
        assert fetched(folder, "abcb") == ["c"], "a, wanted longest ago, made room"

    as_user(ANNA, 0o077, anna)
    as_user(BERT, 0o022, bert)
    as_user(ANNA, 0o077, lambda: check(fetched(folder, "bcd") == ["d"]))
    assert [path.suffix for path in folder.iterdir()] == [".tar", ".tar"]
    for path in folder.iterdir():
        assert (path.stat().st_mode & 0o060, path.stat().st_gid) == (0o060, GROUP)


def test_a_cache_of_shards_that_is_another_s_is_named_with_what_opens_it(place: Path) -> None:
    place.chmod(0o755)
    as_user(ANNA, 0o022, lambda: fetched(place, "a"))

    def bert() -> None:
        assert fetched(place, "a") == []  # what is there may be read
        named = rf"machine.shard_cache.folder {place}: .*{place} is drwxr-xr-x, of user {ANNA}\); .*chmod -R g\+rwX"
        with pytest.raises(ZeroVLError, match=named):
            fetched(place, "b")

    as_user(BERT, 0o022, bert)


def test_everybody_s_folder_that_is_sticky_serves_too(place: Path) -> None:
    place.chmod(0o1777)
    as_user(ANNA, 0o077, lambda: fetched(place, "ab"))

    def bert() -> None:
        assert fetched(place, "ba") == []
        with pytest.raises(Exception, match="no room for another"):  # hers are not his to remove
            fetched(place, "c")

    as_user(BERT, 0o077, bert)
    (place / f"{shard('a').sha256}.tar").unlink()
    as_user(ANNA, 0o077, lambda: os.close(LockedParts(place)._open(place / "left.part")))  # her fetch was killed
    as_user(BERT, 0o077, lambda: check(fetched(place, "c") == ["c"]))
    assert (place / "left.part").exists()


@pytest.mark.usefixtures("unchecked")
def test_a_release_that_one_fetched_is_used_and_removed_by_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROVL_CACHE", str(place))
    registry = Registry(open_store(str(place.parent / "registry")))
    versions = [
        registry.publish("zerovl", {"config.json": b"{}", "sample/a.txt": text}, metrics={}, provenance={}, by="tester")
        for text in (b"one", b"two")
    ]

    def bert() -> None:
        assert cache.is_there(registry.store, versions[0])
        assert (cache.cached(registry.store, versions[0]) / "sample" / "a.txt").read_bytes() == b"one"
        os.environ["ZEROVL_CACHE_GB"] = "0"  # of a child process
        cache.cached(registry.store, versions[1])
        assert not cache.is_there(registry.store, versions[0])

    as_user(ANNA, 0o077, lambda: check(cache.cached(registry.store, versions[0]).is_dir()))
    as_user(BERT, 0o077, bert)
    as_user(ANNA, 0o077, lambda: check(cache.is_there(registry.store, versions[1])))
    closed = next(place.iterdir())
    closed.chmod(0o700)

    def fail() -> None:
        with pytest.raises(
            ZeroVLError, match=rf"ZEROVL_CACHE {place}: .*{closed} is drwx------.*chgrp -R GROUP {place}"
        ):
            cache.cached(registry.store, versions[0])

    as_user(BERT, 0o022, fail)


def test_leases_are_everybody_s_whatever_the_umask(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.chmod(0o777)
    leases = place / "leases"
    monkeypatch.setenv(lease_files.VARIABLE, str(leases))

    def take(name: str) -> gpu_leases.Held:
        return gpu_leases.take(1, ["GPU-a", "GPU-b"], name, say=print, seconds=0)

    before = os.umask(0o077)
    try:
        held = take("root")
        os.close(lease_files.open_file(leases / "7.ticket"))  # as a run that was killed leaves it
    finally:
        os.umask(before)

    def bert() -> None:
        assert take("bert").devices == ("GPU-b",)
        assert str(gpu_leases.look(["GPU-a", "GPU-b"])).startswith("root has GPU-a since")

    as_user(BERT, 0o077, bert)
    held.release()
    as_user(ANNA, 0o022, lambda: take("anna"))
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in leases.iterdir()} == {
        "GPU-a.lease": 0o666,
        "GPU-b.lease": 0o666,
    }
    leases.chmod(0o1777)  # sticky: a ticket that another left stays, and is used again
    os.close(lease_files.open_file(leases / "1.ticket"))
    as_user(BERT, 0o022, lambda: take("bert"))
    (leases / "1.ticket").unlink()
    (leases / "GPU-a.lease").chmod(0o644)

    def fail(named: str) -> None:
        with pytest.raises(ZeroVLError, match=named):
            take("bert")

    file = rf"leases of GPUs in {leases}: .*GPU-a.lease is -rw-r--r--, of user 0\); .*`chmod 777 {leases}; "
    as_user(BERT, 0o022, lambda: fail(file))
    leases.chmod(0o755)
    as_user(BERT, 0o022, lambda: fail(rf"{leases}: no right to write there \({leases} is drwxr-xr-x, of user 0\)"))


def test_a_folder_of_path_that_is_closed_is_no_error_of_a_driver(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    as_user(BERT, 0o022, lambda: check(gpu_names._nvidia_smi.__wrapped__() == ""), group=OTHER_GROUP)


def test_a_run_of_another_user_is_left_to_them(place: Path) -> None:
    ranks = cast(Any, SimpleNamespace(is_first=True, any=lambda refused: [refused]))
    place.chmod(0o755)

    def train() -> None:
        with locked(place / "run", ranks):
            pass

    as_user(ANNA, 0o022, train)

    def fail() -> None:
        with pytest.raises(
            ZeroVLError, match=rf"{re.escape('-rw-r--r--')}, of user {ANNA}\); where the run is another"
        ):
            train()

    as_user(BERT, 0o022, fail)
