"""The files of releases in a store, each named by its content.

    NAME/blobs/sha256/<digest>        a file
    NAME/blobs/sha256/<digest>.<n>    the same once more: the place before was marked when someone needed the file
    NAME/marks/<run>.json             the places that a run of `registry.collection` is about to remove

`keep` relies on no place that is marked; `registry.collection` says why that is enough.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.registry import keys
from zerovl.registry.records import Version
from zerovl.registry.release_files import FileInfo
from zerovl.registry.stores.base import MissingKeyError, Store


def keep(store: Store, name: str, described: Mapping[str, FileInfo], sources: Mapping[str, Path | bytes]) -> None:
    """Store the files that are not there yet; one whose place is marked for removal gets another place.

    Called before a record that names the files is written, and once more after it.
    """
    marked = marked_keys(store, name)  # before the look at a place: what is unmarked by then and removed is seen to be
    for path, info in described.items():
        key = next(key for key in _all_places(name, info.sha256) if key not in marked)
        if not store.exists(key):
            store.create(key, sources[path])


def missing(store: Store, version: Version) -> list[str]:
    """Return the files of a version, by name, that are gone from the store or marked for removal."""
    marked = marked_keys(store, version.name)
    return [
        path
        for path, info in version.files.items()
        if not any(store.exists(key) for key in places(store, version.name, info.sha256) if key not in marked)
    ]


def marked_keys(store: Store, name: str) -> frozenset[str]:
    """Return all places that are marked for removal."""
    found: set[str] = set()
    for key in store.keys(keys.marks(name)):
        with suppress(MissingKeyError):  # its run is over
            found.update(read_mark(store, key)[0])
    return frozenset(found)


def read_mark(store: Store, key: str) -> tuple[frozenset[str], str]:
    """Return the places that a list marks, and since when (UTC, ISO 8601); raises `MissingKeyError`."""
    try:
        values = json.loads(store.read(key))
        return frozenset(map(str, values["keys"])), str(values["when"])
    except (ValueError, KeyError, TypeError):
        raise ZeroVLError(f"{store.describe()}: {key}: not a list of files to remove; delete it") from None


def places(store: Store, name: str, digest: str) -> Iterator[str]:
    """Yield the keys under which a file may be; all but the first are looked up when they are asked for."""
    first = keys.blob(name, digest)
    yield first
    yield from store.keys(f"{first}.")


def read_digest(store: Store, name: str, digest: str) -> str | None:
    """Read a file in the store and return the sha256 of what is there; None where it is nowhere."""
    for key in places(store, name, digest):
        found = hashlib.sha256()
        with suppress(MissingKeyError):
            for block in store.blocks(key):
                found.update(block)
            return found.hexdigest()
    return None


def download(store: Store, name: str, digest: str, target: Path) -> None:
    """Write a file to `target`; raises `MissingKeyError` where it is nowhere."""
    for key in places(store, name, digest):
        with suppress(MissingKeyError):
            store.download(key, target)
            return
    raise _nowhere(store, name, digest)


def read(store: Store, name: str, digest: str) -> bytes:
    """Return the bytes of a small file; raises `MissingKeyError` where it is nowhere."""
    for key in places(store, name, digest):
        with suppress(MissingKeyError):
            return store.read(key)
    raise _nowhere(store, name, digest)


def _nowhere(store: Store, name: str, digest: str) -> MissingKeyError:
    return MissingKeyError(f"{store.describe()}: there is no {keys.blob(name, digest)}")


def _all_places(name: str, digest: str) -> Iterator[str]:
    return (keys.blob(name, digest, copy) for copy in itertools.count())
