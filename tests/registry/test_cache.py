"""The bound of the cache: what goes, what stays, and who is not disturbed."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from tests.support.registries import Bundle, processes
from zerovl.errors import ZeroVLError
from zerovl.registry import cache
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store

MEGABYTE = 1_000_000


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(open_store(str(tmp_path / "store")))


@pytest.fixture
def versions(registry: Registry, make_bundle: Bundle) -> list[Version]:
    """Five models of one megabyte each."""
    return [
        registry.publish("zerovl", make_bundle(content, size=MEGABYTE), metrics={}, provenance={}, by="tester")
        for content in "abcde"
    ]


def limit(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    monkeypatch.setenv("ZEROVL_CACHE_GB", str(megabytes / 1000))


def there(registry: Registry, versions: list[Version]) -> list[int]:
    """Numbers of the versions whose files are in the cache."""
    folders = {version.number: cache._place(registry.store, version) for version in versions}
    return [number for number, folder in folders.items() if (folder / "model.safetensors").is_file()]


def test_what_was_used_longest_ago_is_removed(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 3.5)
    for version in versions[:3]:
        cache.cached(registry.store, version)
        time.sleep(0.02)
    cache.cached(registry.store, versions[0])  # used again, so the second is the oldest now
    time.sleep(0.02)
    cache.cached(registry.store, versions[3])
    assert there(registry, versions) == [1, 3, 4]
    cache.cached(registry.store, versions[4])
    assert there(registry, versions) == [1, 4, 5]
    again = cache.cached(registry.store, versions[1])
    assert (again / "model.safetensors").read_bytes() == b"b" * MEGABYTE
    assert there(registry, versions) == [2, 4, 5]


def test_what_was_just_fetched_stays_however_large(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0)
    for version in versions:
        folder = cache.cached(registry.store, version)
        assert (folder / "model.safetensors").is_file()
        assert there(registry, versions) == [version.number]


def test_a_release_that_is_being_loaded_stays(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0)
    with cache.held(registry.store, versions[0]) as folder:
        cache.cached(registry.store, versions[1])
        assert (folder / "model.safetensors").is_file()
        assert there(registry, versions) == [1, 2]
    cache.cached(registry.store, versions[2])
    assert there(registry, versions) == [3]


def test_what_is_mapped_already_stays_readable(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0)
    folder = cache.cached(registry.store, versions[0])
    with open(folder / "model.safetensors", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        cache.cached(registry.store, versions[1])
        assert not folder.exists()
        assert mapped[:] == b"a" * MEGABYTE


def test_rests_of_killed_downloads_count_and_go(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 2.5)
    rest = cache.cache_folder() / "0123456789abcdef" / ("0" * 64) / ".zerovl.0123.part" / ".model.safetensors.part"
    rest.parent.mkdir(parents=True)
    rest.write_bytes(bytes(2 * MEGABYTE))
    for version in versions[:2]:
        cache.cached(registry.store, version)
    assert not rest.exists()
    assert there(registry, versions) == [1, 2]


def test_without_file_locks_nothing_is_removed(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("zerovl.files.fcntl.flock", refuse)
    limit(monkeypatch, 0)
    for version in versions:
        with cache.held(registry.store, version) as folder:
            assert (folder / "model.safetensors").is_file()
    assert there(registry, versions) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_no_number_is_named(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ZEROVL_CACHE_GB", text)
    with pytest.raises(ZeroVLError, match=f"ZEROVL_CACHE_GB='{text}': expected a number of gigabytes"):
        cache.cached(registry.store, versions[0])


def _load_all(arguments: tuple[str, int]) -> list[bytes]:
    """What one process reads of every version, from another one on; each must be whole, whatever the others do."""
    uri, start = arguments
    registry = Registry(open_store(uri))
    found = []
    for turn in range(10):
        version = registry.version("zerovl", (start + turn) % 5 + 1)
        with cache.held(registry.store, version) as folder:
            time.sleep(0.01)
            found.append((folder / "model.safetensors").read_bytes()[:1] + (folder / "config.json").read_bytes()[:1])
    return found


def test_processes_share_a_cache_that_is_too_small_for_all(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 2.5)
    with processes(4) as pool:
        found = pool.map(_load_all, [(registry.store.uri, start) for start in range(4)], chunksize=1)
    for start, read in enumerate(found):
        assert read == [b"abcde"[(start + turn) % 5 : (start + turn) % 5 + 1] + b"{" for turn in range(10)]
    for entry in cache.cache_folder().glob("*/*"):
        assert set(os.listdir(entry)) <= {"zerovl"}  # whole or gone, nothing half fetched or half removed
    limit(monkeypatch, 0)
    absent = next(version for version in versions if version.number not in there(registry, versions))
    cache.cached(registry.store, absent)
    assert there(registry, versions) == [absent.number]
