from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from tests.support.registries import processes
from zerovl.errors import ZeroVLError
from zerovl.registry.stores import open_store
from zerovl.registry.stores.base import MissingKeyError
from zerovl.registry.stores.folder import FolderStore


def test_nothing_stays_aside(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "file").write_bytes(b"from a file")
    assert store.create("a/b/two", tmp_path / "file")
    assert not store.create("a/b/two", b"other")
    assert os.listdir(tmp_path / "store" / ".aside") == []


def _race(arguments: tuple[Path, int]) -> list[int]:
    folder, number = arguments
    store = FolderStore(folder)
    return [key for key in range(50) if store.create(f"race/{key}", b"%d" % number * 1000)]


def test_of_eight_processes_one_creates_each_key(tmp_path: Path) -> None:
    with processes(8) as pool:
        won = pool.map(_race, [(tmp_path / "store", number) for number in range(8)], chunksize=1)
    assert sorted(key for keys in won for key in keys) == list(range(50))
    store = FolderStore(tmp_path / "store")
    for number, keys in enumerate(won):
        for key in keys:
            assert store.read(f"race/{key}") == b"%d" % number * 1000


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = FolderStore(tmp_path / "store")
    monkeypatch.setattr("zerovl.registry.stores.folder.os.fsync", full)
    with pytest.raises(ZeroVLError, match="cannot write a/key: the disk is full"):
        store.create("a/key", b"value")
    assert store.keys("") == []
    assert os.listdir(tmp_path / "store" / ".aside") == []


def test_a_file_system_without_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr("zerovl.registry.stores.folder.os.link", refuse)
    with pytest.raises(ZeroVLError, match="no hard links"):
        FolderStore(tmp_path).create("key", b"value")


@pytest.mark.parametrize("days_ahead", [-3, 0, 3])
def test_what_killed_publishers_left_is_removed_after_a_day(
    days_ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time of the file system, whatever the clock of this machine says."""
    clock = time.time
    store = FolderStore(tmp_path)
    store.create("a", b"")
    old, young = tmp_path / ".aside" / "old", tmp_path / ".aside" / "young"
    for path in (old, young):
        path.write_bytes(b"part")
    os.utime(old, (clock() - 2 * 24 * 3600,) * 2)
    monkeypatch.setattr(time, "time", lambda: clock() + days_ahead * 24 * 3600)
    store.create("b", b"")
    assert young.exists()
    assert not old.exists()


def test_missing_keys_and_bad_addresses_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingKeyError, match=f"folder {tmp_path}: there is no a/b"):
        FolderStore(tmp_path).read("a/b")
    with pytest.raises(MissingKeyError):
        FolderStore(tmp_path).download("a/b", tmp_path / "copy")
    assert os.listdir(tmp_path) == []
    for uri in ("", "gs://bucket", "s3://", "http://host/store"):
        with pytest.raises(ZeroVLError, match=r"s3://bucket/prefix"):
            open_store(uri)


def test_check(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    assert "exclusive" in store.check()
    assert store.keys("") == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ZeroVLError, match="cannot write"):
        FolderStore(tmp_path / "file").check()
