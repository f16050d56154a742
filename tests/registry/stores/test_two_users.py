"""A registry in a folder that two users of a group share; they are real ones, which root alone can be."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.registries import promote
from tests.support.two_users import ANNA, BERT, GROUP, as_root, as_user, folder_of_the_group
from zerovl.errors import ZeroVLError
from zerovl.registry import collection, retention
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.release.promote import rollback

pytestmark = as_root


@pytest.fixture
def place() -> Iterator[Path]:
    with folder_of_the_group("registry") as folder:
        yield folder


def test_both_publish_read_and_remove_whatever_their_umask(place: Path) -> None:
    def publish(mark: str) -> None:
        store = FolderStore(place)
        assert store.create(f"zerovl/versions/{mark}.json", mark.encode())
        assert store.create(f"zerovl/blobs/sha256/{mark}", b"weights")
        assert not store.create("zerovl/versions/1.json", b"again")
        assert store.read("zerovl/versions/1.json") == b"1"
        assert "exclusive" in store.check()

    as_user(ANNA, 0o077, lambda: publish("1"))
    as_user(BERT, 0o022, lambda: publish("2"))
    as_user(BERT, 0o022, lambda: FolderStore(place).delete("zerovl/blobs/sha256/1"))  # as `registry gc` does
    as_user(ANNA, 0o077, lambda: FolderStore(place).delete("zerovl/blobs/sha256/2"))
    assert FolderStore(place).keys("") == ["zerovl/versions/1.json", "zerovl/versions/2.json"]
    for folder in (path for path in place.rglob("*") if path.is_dir()):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o2070 == 0o2070, folder
        assert folder.stat().st_gid == GROUP


@pytest.mark.usefixtures("unchecked")
def test_one_publishes_the_other_promotes_rolls_back_retires_and_collects(place: Path) -> None:
    def publish(content: bytes) -> None:
        caches = tempfile.mkdtemp(prefix="zerovl-cache-")
        try:
            os.environ["ZEROVL_CACHE"] = caches  # of a child process
            registry = Registry(FolderStore(place))
            files: dict[str, Path | bytes] = {"config.json": b"{}", "model.safetensors": content}
            promote(registry, registry.publish("zerovl", files, metrics={}, provenance={}, by="tester"))
            if content == b"4":
                rollback(registry, "zerovl", "production", why="regression", by="tester")
                retention.retire(registry, registry.version("zerovl", 1), "of no use", "tester")
                assert len(collection.collect(registry, "zerovl", collection.grace(0), "tester")) == 1
        finally:
            shutil.rmtree(caches)

    for user, umask, content in ((ANNA, 0o077, b"1"), (BERT, 0o022, b"2"), (ANNA, 0o077, b"3"), (BERT, 0o077, b"4")):
        as_user(user, umask, partial(publish, content))
    current = Registry(FolderStore(place)).current("zerovl", "production")
    assert current is not None
    assert (current.action, current.version) == ("rollback", 3)


def test_what_keeps_the_group_out_is_named_with_what_opens_it(place: Path) -> None:
    as_user(ANNA, 0o077, lambda: FolderStore(place).create("zerovl/versions/1.json", b"1"))
    closed = place / "zerovl" / "versions"
    closed.chmod(0o755)  # as before the folder was shared

    def fail() -> None:
        store = FolderStore(place)
        with pytest.raises(ZeroVLError, match=rf"cannot write zerovl/versions/2.json: .*chmod -R g\+rwX {place}"):
            store.create("zerovl/versions/2.json", b"2")
        with pytest.raises(ZeroVLError, match=rf"cannot write in {closed} \(drwxr-xr-x, of user {ANNA}\)"):
            store.check()

    as_user(BERT, 0o022, fail)


def test_a_folder_that_nobody_else_may_enter_is_named_and_opened_by_its_owner(place: Path) -> None:
    as_user(ANNA, 0o077, lambda: FolderStore(place).create("zerovl/versions/1.json", b"1"))
    closed = place / "zerovl" / "versions"
    closed.chmod(0o700)  # as a kill between making and opening leaves it

    def fail() -> None:
        store = FolderStore(place)
        calls: dict[str, Callable[[], object]] = {
            "write zerovl/versions/1.json": lambda: store.create("zerovl/versions/1.json", b"1"),
            "read zerovl/versions/1.json": lambda: store.exists("zerovl/versions/1.json"),
            "list zerovl/": lambda: store.keys("zerovl/"),
            "list zerovl/versions/": lambda: store.folders("zerovl/versions/"),
        }
        for action, call in calls.items():
            with pytest.raises(ZeroVLError, match=rf"cannot {action}: .*Permission denied.*chmod -R g\+rwX {place}"):
                call()
        with pytest.raises(ZeroVLError, match=rf"cannot write in {closed} \(drwx------, of user {ANNA}\)"):
            store.check()

    as_user(BERT, 0o022, fail)
    as_user(ANNA, 0o077, lambda: FolderStore(place).create("zerovl/versions/2.json", b"2"))
    as_user(BERT, 0o022, lambda: FolderStore(place).create("zerovl/versions/3.json", b"3"))
    (place / "lost+found").mkdir(mode=0o700)  # root's, where a file system is mounted
    as_user(BERT, 0o022, lambda: FolderStore(place).check())
    closed.chmod(0o770)
    with pytest.raises(ZeroVLError, match=rf"not handed on \(setgid\) by {closed} \(drwxrwx---, of user {ANNA}\)"):
        FolderStore(place).check()


def test_a_folder_of_one_user_stays_one_s(place: Path) -> None:
    place.chmod(0o700)
    as_user(ANNA, 0o022, lambda: FolderStore(place).create("zerovl/versions/1.json", b"1"))
    assert stat.S_IMODE((place / "zerovl").stat().st_mode) & 0o2070 == 0o050
