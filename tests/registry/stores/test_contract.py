"""What the registry needs of a store, asked of each kind; another kind is a line in the fixture `registry`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.registries import Bundle, promote, publish
from zerovl.errors import ZeroVLError
from zerovl.registry import transfer
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.registry.stores.base import MissingKeyError, Store


@pytest.fixture
def store(registry: Registry) -> Store:
    return registry.store


def test_a_key_is_created_once_and_read_back(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file" * 1000)
    assert (store.keys(""), store.folders("")) == ([], [])
    assert store.create("a/one", b"first")
    assert not store.create("a/one", b"second")
    assert store.create("a/deep/two", tmp_path / "file")
    assert store.create("b/three", b"")
    assert (store.read("a/one"), store.read("b/three")) == (b"first", b"")
    assert b"".join(store.blocks("a/deep/two")) == b"from a file" * 1000
    assert (store.exists("a/one"), store.exists("a/three"), store.exists("a")) == (True, False, False)
    assert store.keys("a/") == ["a/deep/two", "a/one"]
    assert store.keys("a/o") == ["a/one"]
    assert (store.folders(""), store.folders("a/"), store.folders("b/")) == (["a", "b"], ["deep"], [])
    store.download("a/deep/two", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == b"from a file" * 1000


def test_of_many_writers_one_creates_the_key(store: Store) -> None:
    with ThreadPoolExecutor(8) as executor:
        created = list(executor.map(lambda number: store.create("key", b"%d" % number), range(8)))
    assert created.count(True) == 1
    assert store.read("key") == b"%d" % created.index(True)


def test_what_is_missing_and_what_is_not_a_key_is_told(store: Store, tmp_path: Path) -> None:
    for read in (store.read, lambda key: list(store.blocks(key)), lambda key: store.download(key, tmp_path / "copy")):
        with pytest.raises(MissingKeyError, match="there is no a/b"):
            read("a/b")
    assert not (tmp_path / "copy").exists()
    for key in ("../out", "/etc/passwd", "a//b", "a/../b", ".hidden", "a b", "", "a/"):
        with pytest.raises(ZeroVLError, match="use letters"):
            store.create(key, b"")


def test_its_address_opens_it_again(store: Store) -> None:
    store.create("key", b"value")
    again = open_store(store.uri)
    assert (again.read("key"), again.describe(), again.uri) == (b"value", store.describe(), store.uri)
    assert "can be written" in again.check()
    assert again.keys("") == ["key"]  # the check leaves nothing


@pytest.mark.usefixtures("unchecked")
def test_a_release_from_its_publication_to_a_folder(registry: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    files = make_bundle("a")
    version = publish(registry, files)
    assert publish(registry, files) == version
    move = promote(registry, version)
    found = registry.resolve("zerovl@production")
    assert (found, registry.history("zerovl", "production")) == (version, [move])
    transfer.verify(registry.store, found)
    transfer.pull(registry.store, found, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == {"embed_dim": 8}
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"a" * 5000
