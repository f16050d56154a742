"""What parts of files are read by, wherever the files lie."""

from __future__ import annotations

from typing import Protocol


class ByteRanges(Protocol):
    """Gives parts of the shards at one place; picklable."""

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes, fewer at the file's end; raises `OSError` where that fails."""
        ...

    def renew(self, path: str) -> bool:
        """Return whether a copy of this shard was kept, found damaged and removed, so that a read gets a new one."""
        ...

    def close(self) -> None:
        """Close what is open; a later read opens it again."""
        ...
