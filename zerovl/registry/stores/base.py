"""Where releases are kept: a flat space of keys with one way of writing, create-if-absent.

Nothing is ever overwritten through a store. That one primitive is enough for publishers
that do not know of each other: whoever creates a key first has it, everyone else is told so.
`registry.collection` alone deletes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from zerovl.errors import ZeroVLError

BLOCK = 1 << 20
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class MissingKeyError(ZeroVLError):
    """A key is asked for that is not in the store."""


class StoreAwayError(ZeroVLError):
    """The store cannot be reached now, whatever it holds."""


class Store(Protocol):
    """A folder or a bucket. All methods raise `ZeroVLError` where the store itself cannot be used."""

    @property
    def uri(self) -> str:
        """What `open_store` takes to open this store again."""

    def create(self, key: str, source: Path | bytes) -> bool:
        """Write a key that does not exist yet, whole or not at all.

        Returns:
            True if this call created it, False if it existed; then it is left as it is.
        """

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is none to remove. Whoever asks afterwards does not find it."""

    def exists(self, key: str) -> bool:
        """Return whether there is such a key."""

    def read(self, key: str) -> bytes:
        """Return all bytes of a small key; raises `MissingKeyError`."""

    def blocks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a key, of any size, block by block; raises `MissingKeyError`."""

    def download(self, key: str, path: Path) -> None:
        """Write a key to `path`, which is whole or absent; raises `MissingKeyError`."""

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with `prefix`, sorted."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below `prefix` ("" or ending in "/") that have keys below them, sorted."""

    def check(self) -> str:
        """Try whether the store can be written and creation is exclusive; returns a sentence on it."""

    def hurried(self) -> Store:
        """Return this store for a question that has an answer at hand: it gives up early where it cannot be reached.

        Raises `StoreAwayError`, here or when it is asked, where it is away; a server's `NoAnswerError` says the same.
        """

    def describe(self) -> str:
        """Return the store as messages name it; differs for different stores."""


def check_key(key: str) -> str:
    """Return a key that is plain names joined by "/"; raises `ZeroVLError` for what could leave the store's folder."""
    if not _KEY.fullmatch(key):
        raise ZeroVLError(f"key {key!r}: use letters, digits, '.', '_' and '-' in names joined by '/'")
    return key
