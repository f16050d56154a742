"""A third kind of store, in the memory of one process: what `zerovl.registry.stores.base.Store` asks for, no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from zerovl.registry.stores.base import MissingKeyError, check_key

_STORES: dict[str, MemoryStore] = {}


class MemoryStore:
    """Keys are entries of a dictionary; one lock makes creation exclusive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._content: dict[str, bytes] = {}
        self._lock = Lock()

    @property
    def uri(self) -> str:
        return f"memory://{self._name}"

    def create(self, key: str, source: Path | bytes) -> bool:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with self._lock:
            if check_key(key) in self._content:
                return False
            self._content[key] = data
        return True

    def delete(self, key: str) -> None:
        self._content.pop(check_key(key), None)

    def exists(self, key: str) -> bool:
        return key in self._content

    def read(self, key: str) -> bytes:
        try:
            return self._content[check_key(key)]
        except KeyError:
            raise MissingKeyError(f"{self.describe()}: there is no {key}") from None

    def blocks(self, key: str) -> Iterator[bytes]:
        data = self.read(key)
        yield from (data[start : start + 1000] for start in range(0, len(data), 1000))

    def download(self, key: str, path: Path) -> None:
        data = self.read(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._content if key.startswith(prefix))

    def folders(self, prefix: str) -> list[str]:
        rests = (key.removeprefix(prefix) for key in self.keys(prefix))
        return sorted({rest.partition("/")[0] for rest in rests if "/" in rest})

    def check(self) -> str:
        return "can be written, creation is exclusive"

    def hurried(self) -> MemoryStore:
        return self

    def describe(self) -> str:
        return f"memory {self._name}"


def open_memory(uri: str) -> MemoryStore:
    """As an opener in `zerovl.registry.stores`: one address is one store."""
    return _STORES.setdefault(uri, MemoryStore(uri.partition("://")[2]))
