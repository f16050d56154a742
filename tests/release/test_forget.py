"""A picture that must go leaves the sample of every version, now and later; what is left verifies."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.support.interleavings import count_steps, interleave, orders
from tests.support.memory_store import MemoryStore
from tests.support.registries import promote, publish
from zerovl import cli
from zerovl.errors import ZeroVLError
from zerovl.params import GateParams, RegisterParams
from zerovl.registry import cache, collection, keys, notes, retention, transfer
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores.base import Store
from zerovl.release import forget
from zerovl.release.gate import NoHolder
from zerovl.release.publish import Candidate, publish_and_judge
from zerovl.release.sample_pictures import pictures
from zerovl.release.usage import NO_SAMPLE, usage_lines

pytestmark = pytest.mark.usefixtures("registry_environment", "unchecked")
PICTURES = [b"a cat", b"a person", b"a dog"]
PERSON = hashlib.sha256(b"a person").hexdigest()


def release(weights: bytes, shown: list[bytes] = PICTURES) -> dict[str, Path | bytes]:
    """A model with a sample of these pictures; row n of its embeddings is n, n."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for row, picture in enumerate(shown):
            caption = picture.decode()
            record = json.dumps({"key": f"photos-{caption[2:]}", "captions": [f"{caption} at home"]}).encode()
            for suffix, data in (("jpg", picture), ("json", record)):
                member = tarfile.TarInfo(f"{row:06d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    rows = np.repeat(np.arange(len(shown), dtype=np.float32)[:, None], 2, axis=1)  # (n, D)
    return {
        "config.json": b"{}",
        "model.safetensors": weights,
        "sample/pairs.tar": file.getvalue(),
        "sample/embeddings.safetensors": save({"image_emb": rows, "text_emb": rows}),
    }


def shown(store: Store, version: Version) -> list[str]:
    return [picture.key for picture in pictures(forget._stored(Registry(store), version, "sample/pairs.tar"), "test")]


def test_a_picture_leaves_every_version(registry: Registry, tmp_path: Path) -> None:
    for weights in (b"one", b"two", b"three"):
        publish(registry, release(weights))
    promote(registry, registry.version("zerovl", 3))
    retention.retire(registry, registry.version("zerovl", 1), "old", "tester")
    publish(registry, release(b"four", [b"a cat"]))
    before = cache.cached(registry.store, registry.version("zerovl", 2))
    found = forget.forget_digest(registry, "zerovl", PERSON, "she asked for it", "tester")
    assert (found.pictures, sorted(found.versions)) == ((PERSON,), [1, 2, 3])
    assert sorted(each.path for each in found.removed) == ["sample/embeddings.safetensors", "sample/pairs.tar"]
    for key in registry.store.keys("zerovl/blobs/"):
        assert b"a person" not in registry.store.read(key)
    for number in (1, 2, 3, 4):
        version = registry.version("zerovl", number)
        transfer.verify(registry.store, version)
        assert shown(registry.store, version) == ["photos-cat", "photos-dog"][: 1 if number == 4 else 2]
    (note,) = notes.state(registry.notes_on(registry.version("zerovl", 2))).withdrawals
    assert note.text == "1 picture: she asked for it"
    assert notes.state(registry.notes_on(registry.version("zerovl", 1))).word == "retired"  # its own files are there
    retention.restore(registry, registry.version("zerovl", 1), "", "tester")
    original = registry._as_published("zerovl", 2)
    assert {path: each.withdrawn for path, each in note.replaced.items()} == {
        path: original.files[path].sha256 for path in ("sample/pairs.tar", "sample/embeddings.safetensors")
    }
    # The cache has the new sample at the next use, and not the old one.
    assert cache.cached(registry.store, registry.version("zerovl", 2)) == before
    assert b"a person" not in (before / "sample" / "pairs.tar").read_bytes()
    assert load((before / "sample" / "embeddings.safetensors").read_bytes())["text_emb"][:, 0].tolist() == [0.0, 2.0]
    move = promote(registry, registry.version("zerovl", 2))
    assert move is not None
    assert move.check.endswith("its sample is smaller than it was, pictures were withdrawn from it")
    assert forget.forget_digest(registry, "zerovl", PERSON, "again", "tester").versions == ()


def test_a_caption_leaves_the_card_with_its_picture(local: Registry) -> None:
    cards = {caption: usage_lines(RegisterParams(), "1", caption) for caption in ("a cat at home", "a person at home")}
    for number, card in enumerate(cards.values()):
        publish(local, {**release(b"%d" % number), "MODEL_CARD.md": card.encode()})
    forget.forget_digest(local, "zerovl", PERSON, "she asked for it", "tester")
    kept, changed = (
        forget._stored(local, local.version("zerovl", number), "MODEL_CARD.md").decode() for number in (1, 2)
    )
    assert kept == cards["a cat at home"]
    assert changed == usage_lines(RegisterParams(), "1", NO_SAMPLE)
    assert all(b"a person at home" not in local.store.read(key) for key in local.store.keys("zerovl/blobs/"))
    later = forget.without_forgotten(
        local, "zerovl", {**release(b"later"), "MODEL_CARD.md": cards["a person at home"].encode()}
    )
    assert later["MODEL_CARD.md"] == changed.encode()


def test_a_later_release_goes_without_it(local: Registry) -> None:
    publish(local, release(b"one"))
    forget.forget_key(local, "zerovl", "photos-person", "she asked for it", "tester")
    files = forget.without_forgotten(local, "zerovl", release(b"two"))
    assert shown(local.store, publish(local, files)) == ["photos-cat", "photos-dog"]
    whole = release(b"three", [b"a cat"])
    assert forget.without_forgotten(local, "zerovl", whole) == whole


def test_a_retired_version_without_its_files_stops_nobody(local: Registry) -> None:
    version = publish(local, release(b"one"))
    publish(local, release(b"two", [b"a person"]))
    retention.retire(local, version, "old", "tester")
    # As after a removal that was killed before the version said so.
    local.store.delete(keys.blob("zerovl", version.files["sample/pairs.tar"].sha256))
    assert forget.forget_digest(local, "zerovl", PERSON, "she asked for it", "tester").versions == (2,)


def test_one_that_is_named_while_it_is_registered_is_told(
    local: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("zerovl"), "propagate", True)
    monkeypatch.setattr(forget, "without_forgotten", lambda registry, name, files: files)
    local.store.create(keys.forgotten("zerovl", PERSON), b'{"why": "she asked for it"}')
    section = RegisterParams(alias="", gate=GateParams(min_rsum=0.0))
    metrics = {"mean": {"rsum": 300.0}, "overall": {"rsum": 300.0}, "sources": {}}
    compare = lambda registry, holder: NoHolder("none")  # noqa: E731
    candidate = Candidate(release(b"one"), metrics, {})
    version = publish_and_judge(local, candidate, section, compare).version  # type: ignore[arg-type]
    assert shown(local.store, version) == ["photos-cat", "photos-dog"]
    assert "withdrawn from zerovl@1 while it was registered; `zerovl registry gc zerovl` removes" in caplog.text
    assert len(collection.collect(local, "zerovl", collection.grace(7), "tester")) == 2


@pytest.mark.usefixtures("read_in_order")
def test_two_that_forget_and_one_that_registers_leave_neither_picture() -> None:
    cat = hashlib.sha256(b"a cat").hexdigest()

    def start() -> MemoryStore:
        store = MemoryStore("race")
        publish(Registry(store), release(b"one"))
        return store

    def forget_it(digest: str, store: Store) -> None:
        forget.forget_digest(Registry(store), "zerovl", digest, "she asked for it", "tester")

    def register(store: Store) -> None:
        registry = Registry(store)
        version = publish(registry, forget.without_forgotten(registry, "zerovl", release(b"two")))
        forget.withdraw(registry, version, "tester")

    for acts, left in (
        ((lambda store: forget_it(PERSON, store), lambda store: forget_it(cat, store)), ["photos-dog"]),
        ((lambda store: forget_it(PERSON, store), register), ["photos-cat", "photos-dog"]),
    ):
        first, second = (count_steps(start(), act) for act in acts)
        for order in list(orders(first, second))[::17]:
            store = start()
            assert interleave(store, acts, order) == [None, None]
            for version in Registry(store).versions("zerovl"):
                transfer.verify(store, version)
                assert shown(store, version) == left


def test_what_cannot_be_forgotten_is_told(local: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    publish(local, release(b"one"))
    publish(local, {**release(b"two"), "sample/pairs.tar": b"no tar"})

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main(["registry", "--store", local.store.uri, "forget", "zerovl", *words])
        told = capsys.readouterr()
        return status, told.err if status else told.out

    assert run("--sha256", "abc", "--why", "asked") == (
        2,
        "zerovl registry: --sha256 'abc': expected 64 hexadecimal digits, as `sha256sum` prints them\n",
    )
    status, told = run("--sha256", PERSON, "--why", "asked")
    assert (status, "\nzerovl@2: sample/pairs.tar: no readable sample" in told) == (2, True)
    assert shown(local.store, local.version("zerovl", 1)) == ["photos-cat", "photos-dog"]  # all the same
    status, told = run("--key", "photos-cat", "--why", "asked")
    assert (status, "\nzerovl@2: sample/pairs.tar: no readable sample" in told) == (2, True)
    assert shown(local.store, local.version("zerovl", 1)) == ["photos-dog"]  # all the same, and so by its key
    status, told = run("--key", "photos-horse", "--why", "asked")
    assert (status, told.count("\n"), "\nzerovl@2: sample/pairs.tar" in told) == (2, 2, True)
    with pytest.raises(ZeroVLError, match="for a reason"):
        forget.forget_digest(local, "zerovl", PERSON, " ", "tester")


def test_the_command(local: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    publish(local, release(b"one"))

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert cli.main(["registry", "--store", local.store.uri, *words]) == status
        told = capsys.readouterr()
        return told.err if status else told.out

    assert "no sample of zerovl has such a picture" in run("forget", "zerovl", "--key", "x", "--why", "y", status=2)
    told = run("forget", "zerovl", "--key", "photos-person", "--why", "she asked for it")
    assert f"picture {PERSON}: must not be in releases of zerovl\nzerovl@1: its sample is smaller now\n2 files" in told
    again = run("forget", "zerovl", "--key", "photos-person", "--why", "she asked for it")
    assert again.startswith(f"picture {PERSON}: must not be in releases of zerovl\n0 files, 0 B removed")
    assert "Withdrawn:  sample/pairs.tar, sha256 " in run("show", "zerovl@1")
    assert json.loads(run("forget", "zerovl", "--sha256", PERSON, "--why", "again", "--json"))["versions"] == []
