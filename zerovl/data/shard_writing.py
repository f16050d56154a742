"""Shards as they are written: whole or not at all, and the same bytes for the same samples."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from zerovl.files import atomic_write


def sample_members(
    key: str, picture: bytes, source: str, image_id: int | None, captions: Sequence[str], caption_ids: Sequence[int]
) -> list[tuple[str, bytes]]:
    """Return the two members that a sample is, by their names; `picture` is a JPEG."""
    description = {"image_id": image_id, "captions": captions, "caption_ids": caption_ids, "source": source}
    text = json.dumps(description, ensure_ascii=False).encode("utf-8")
    return [(f"{key}.jpg", picture), (f"{key}.json", text)]


class ShardWriter:
    """A tar in the making; it comes into being with its first sample."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._size = 0

    def add(self, members: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
        """Append members; returns the byte range (offset, size) that they take with headers and padding."""
        start = self._size
        for name, data in members:
            header = tarfile.TarInfo(name)  # mode 644, time, user and group 0
            header.size = len(data)
            self._write(header.tobuf(tarfile.USTAR_FORMAT))
            self._write(data)
            self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return start, self._size - start

    def finish(self) -> tuple[int, str]:
        """Write the end mark; returns (bytes, sha256), (0, "") where nothing was added."""
        if self._file is None:
            return 0, ""
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self._size + end) % tarfile.RECORDSIZE))
        return self._size, self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._stack.enter_context(atomic_write(self._path))
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)
