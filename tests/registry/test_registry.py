"""What is published once and found again: versions, names and references, and records that are refused."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.registries import Bundle, processes, publish
from zerovl.errors import ZeroVLError
from zerovl.registry import transfer
from zerovl.registry.records import Move, now
from zerovl.registry.registry import Registry, split_reference
from zerovl.registry.stores import open_store


def test_push_and_pull(registry: Registry, make_bundle: Bundle, tmp_path: Path) -> None:
    files = make_bundle("a", size=20 << 20)
    version = publish(registry, files, provenance={"git": {"commit": "abc"}}, verdict={"passed": True, "reasons": []})
    assert version.reference == "zerovl@1"
    assert registry.resolve("zerovl@1") == version
    assert registry.names() == ["zerovl"]
    transfer.verify(registry.store, version)
    transfer.pull(registry.store, version, tmp_path / "out" / "model")
    pulled = {path.name: path.read_bytes() for path in (tmp_path / "out" / "model").iterdir()}
    assert pulled == {
        name: source if isinstance(source, bytes) else source.read_bytes() for name, source in files.items()
    }
    assert os.listdir(tmp_path / "out") == ["model"]
    blob = registry.store.read(f"zerovl/blobs/sha256/{hashlib.sha256(pulled['config.json']).hexdigest()}")
    assert blob == pulled["config.json"]
    assert json.loads(registry.store.read("zerovl/versions/1.json"))["provenance"] == {"git": {"commit": "abc"}}


def test_the_same_bundle_is_the_same_version(registry: Registry, make_bundle: Bundle) -> None:
    first = publish(registry, make_bundle("a"))
    second = publish(registry, make_bundle("b"))
    told = {**make_bundle("a"), "provenance.json": b'{"date": "later"}', "MODEL_CARD.md": b"# other words"}
    assert publish(registry, told, by="someone else") == first
    assert publish(registry, {**make_bundle("a"), "metrics.json": b"{}"}).number == 3
    # Its evidence is rounded otherwise on another machine; it is the same model.
    evidence: dict[str, Path | bytes] = {"queries.parquet": b"ranks", "sample/pairs.tar": b"pairs"}
    assert publish(registry, {**make_bundle("a"), **evidence}) == first
    assert (first.number, second.number) == (1, 2)
    assert registry.numbers("zerovl") == [1, 2, 3]


def test_two_publishers_of_one_identity_get_one_version(local: Registry, make_bundle: Bundle) -> None:
    """The other one publishes the same, and something else, after our look at what exists."""
    files, looked = make_bundle("a"), local.numbers

    def overtaken(name: str) -> list[int]:
        numbers = looked(name)
        local.numbers = looked  # type: ignore[method-assign]
        publish(local, make_bundle("b"))
        publish(local, files)
        return numbers

    local.numbers = overtaken  # type: ignore[method-assign]
    assert publish(local, files).number == 2
    assert local.numbers("zerovl") == [1, 2]


def _publish_one(arguments: tuple[str, int]) -> int:
    uri, content = arguments
    files: dict[str, Path | bytes] = {
        "model.safetensors": b"%d" % content * 1000,
        "config.json": b"{}",
        "metrics.json": b"{}",
    }
    return publish(Registry(open_store(uri)), files).number


@pytest.mark.parametrize(
    ("registry", "contents"),
    [("s3", range(8)), ("folder", range(8)), ("folder", [0, 1, 2, 3] * 2)],
    ids=["s3", "folder", "folder-pairs"],
    indirect=["registry"],
)
def test_eight_publishers_at_once(registry: Registry, contents: list[int]) -> None:
    with processes(8) as pool:
        numbers = pool.map(_publish_one, [(registry.store.uri, content) for content in contents], chunksize=1)
    distinct = len(set(contents))
    assert set(numbers) == set(range(1, distinct + 1))
    assert registry.numbers("zerovl") == list(range(1, distinct + 1))
    for number, content in zip(numbers, contents, strict=True):
        version = registry.version("zerovl", number)
        transfer.verify(registry.store, version)
        assert version.files["model.safetensors"].sha256 == hashlib.sha256(b"%d" % content * 1000).hexdigest()


@pytest.mark.parametrize(
    "name", ["weights.pth", "deep/optimiser.PT", "state.pkl", "pytorch_model.bin", "../up", "/abs", "a/../b", ".hidden"]
)
def test_unsafe_files_are_refused(local: Registry, make_bundle: Bundle, name: str) -> None:
    with pytest.raises(ZeroVLError, match=r"pickle|not allowed"):
        publish(local, {**make_bundle("a"), name: b"data"})
    assert local.names() == []
    # Nor are they fetched from a store that someone else filled.
    version = publish(local, make_bundle("b"))
    record = json.loads(version.to_bytes())
    record["files"][name] = record["files"].pop("config.json")
    local.store.create("zerovl/versions/2.json", json.dumps(record).encode())
    with pytest.raises(ZeroVLError, match=r"pickle|not allowed"):
        local.resolve("zerovl@2")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"name": 1', b"\xff"])
def test_a_broken_record_is_named(local: Registry, data: bytes) -> None:
    local.store.create("zerovl/versions/1.json", data)
    with pytest.raises(ZeroVLError, match=r"zerovl/versions/1.json: this is not a record"):
        local.resolve("zerovl@1")


def test_digests_that_are_paths_are_refused(local: Registry, make_bundle: Bundle) -> None:
    version = publish(local, make_bundle("a"))
    record = json.loads(version.to_bytes())
    record["files"]["config.json"]["sha256"] = "../../secret"
    local.store.create("zerovl/versions/2.json", json.dumps(record).encode())
    with pytest.raises(ZeroVLError, match="64 hexadecimal digits"):
        local.resolve("zerovl@2")


def test_what_does_not_exist_is_told_with_what_does(registry: Registry, make_bundle: Bundle) -> None:
    with pytest.raises(ZeroVLError, match="there is no zerovl@1; the store has no models at all"):
        registry.resolve("zerovl@1")
    version = publish(registry, make_bundle("a"))
    assert registry.append(Move("zerovl", "staging", 1, "promote", version.number, now(), "tester", "", None))
    with pytest.raises(ZeroVLError, match="no zerovl@7; zerovl has the versions 1 and the aliases: staging"):
        registry.resolve("zerovl@7")
    with pytest.raises(ZeroVLError, match="no zerovl@production; zerovl has the versions 1 and the aliases: staging"):
        registry.resolve("zerovl@production")
    with pytest.raises(ZeroVLError, match="no other@1; the store has zerovl"):
        registry.resolve("other@1")
    with pytest.raises(ZeroVLError, match="no zerovl@nothing"):
        registry.holder_before("zerovl", "nothing")


def test_names_and_references_are_checked(local: Registry) -> None:
    assert split_reference("zerovl@production") == ("zerovl", "production")
    for reference in ("zerovl", "zerovl@", "@production", "a b@c", "a@b/c", "a/b@c"):
        with pytest.raises(ZeroVLError, match=r"NAME@ALIAS|use letters"):
            split_reference(reference)
    move = Move("zerovl", "production", 1, "promote", 1, now(), "", "", None)
    with pytest.raises(ZeroVLError, match="would look like a version"):
        local.append(replace(move, alias="3"))
    with pytest.raises(ZeroVLError, match="use letters"):
        local.append(replace(move, alias="../x"))
    with pytest.raises(ZeroVLError, match="use letters"):
        local.append(replace(move, name="a/b"))
