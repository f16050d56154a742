"""Small releases, and a registry in a store of each kind to publish them to."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from tests.support.interleavings import InOrder
from tests.support.memory_store import open_memory
from zerovl.registry import stores
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.registry.stores.folder import FolderStore
from zerovl.release import promote as promoting

Bundle = Callable[..., dict[str, Path | bytes]]


def publish(registry: Registry, files: dict[str, Path | bytes], **changes: object) -> Version:
    """Publish files as a version of "zerovl"."""
    arguments: dict[str, object] = {"metrics": {"overall": {"rsum": 1.0}}, "provenance": {}, "by": "tester"}
    return registry.publish("zerovl", files, **{**arguments, **changes})  # type: ignore[arg-type]


def promote(registry: Registry, version: Version, alias: str = "production") -> Move | None:
    """Promote from whoever has the alias now; the tests use it with `unchecked`."""
    current = registry.current(version.name, alias)
    after = current.number if current else 0
    return promoting.promote(registry, version, alias, why="better", by="tester", after=after)


def damage(registry: Registry, version: Version, path: str) -> Path:
    """Flip one bit in the middle of a blob of a folder store."""
    blob = Path(registry.store.uri) / version.name / "blobs" / "sha256" / version.files[path].sha256
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    return blob


def processes(count: int) -> Pool:
    """Processes of their own with this one's environment; what they import is imported once, by their fork server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "boto3.session", "botocore.endpoint"])
    return context.Pool(count, initializer=_take_over, initargs=(dict(os.environ),))


def _take_over(environment: dict[str, str]) -> None:
    os.environ.update(environment)


@pytest.fixture
def registry_environment(clean_aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine's user, and a cache of the test's own."""
    for name in ("ZEROVL_STORE", "ZEROVL_CACHE_GB", "ZEROVL_ALLOW_UNCONDITIONAL_PUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZEROVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZEROVL_RUN", "test-run")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files here are not models, so they are fetched and compared before a promotion, but not loaded."""
    monkeypatch.setattr("zerovl.release.promote.check_release", lambda folder: "")


@pytest.fixture
def read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are read one after the other, and not by eight threads in an order of their own."""
    monkeypatch.setattr("zerovl.registry.notes.ThreadPoolExecutor", InOrder)
    monkeypatch.setattr("zerovl.registry.registry.ThreadPoolExecutor", InOrder)


@pytest.fixture(params=["folder", "s3", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry in a store of each kind; of the third, this line is all that it takes beside its own module."""
    monkeypatch.setitem(stores._KINDS, "memory", open_memory)
    if request.param == "folder":
        return Registry(open_store(str(tmp_path / "registry")))
    if request.param == "memory":
        return Registry(open_store(f"memory://{tmp_path.name}"))
    return Registry(open_store(f"s3://{request.getfixturevalue('moto_bucket')}/team"))


@pytest.fixture
def local(tmp_path: Path) -> Registry:
    """A registry in a folder."""
    return Registry(FolderStore(tmp_path / "registry"))


@pytest.fixture
def make_bundle(tmp_path: Path) -> Bundle:
    """Files of a release; other `content` is another model."""

    def make(content: str = "a", size: int = 5000) -> dict[str, Path | bytes]:
        folder = tmp_path / f"bundle-{content}-{size}"
        folder.mkdir(exist_ok=True)
        weights = folder / "model.safetensors"
        weights.write_bytes((content.encode() * size)[:size])
        (folder / "config.json").write_text(json.dumps({"embed_dim": 8}))
        (folder / "tokenizer.json").write_text("{}")
        return {
            **{path.name: path for path in folder.iterdir()},
            "metrics.json": json.dumps({"overall": {"rsum": 100.0}}).encode(),
            "provenance.json": b"{}",
            "MODEL_CARD.md": b"# card",
        }

    return make
