"""Shards as they are written: whole or not at all, and the same bytes for the same samples.

WebDataset's own `TarWriter` writes them. Reading is done by hand (`zerovl.data.shards`): a sample by its byte range
needs no tar to be gone through, and a run resumes at any step (docs/tars.md compares the two).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

from zerovl.data.placed_tars import PlacedPicture
from zerovl.files import atomic_write

if TYPE_CHECKING:
    from webdataset import TarWriter

Members = dict[str, str | bytes]  # extension -> content; "__key__": what the members' names begin with


def sample_members(
    key: str,
    picture: bytes | PlacedPicture,
    source: str,
    image_id: int | None,
    captions: Sequence[str],
    caption_ids: Sequence[int],
) -> Members:
    """Return a sample as WebDataset has it, of two members; `picture` is a JPEG, or where one lies: then it is one."""
    description = {"image_id": image_id, "captions": captions, "caption_ids": caption_ids, "source": source}
    if isinstance(picture, PlacedPicture):
        placed = json.dumps(description | {"picture": asdict(picture)}, ensure_ascii=False)
        return {"__key__": key, "json": placed.encode("utf-8")}
    text = json.dumps(description, ensure_ascii=False).encode("utf-8")
    return {"__key__": key, "jpg": picture, "json": text}


class _Output:
    """Where the bytes of a tar go: a file, counted and digested on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


class ShardWriter:
    """A tar in the making; it comes into being with its first sample."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack
        self._begun: tuple[TarWriter, _Output] | None = None

    def add(self, members: Members) -> tuple[int, int]:
        """Append a sample; returns the byte range (offset, size) that it takes with headers and padding."""
        writer, _ = self._begun = self._begun or self._begin()
        tar = writer.tarstream
        start = tar.offset
        writer.write(members)
        tar.members.clear()  # else it keeps every header
        return start, tar.offset - start

    def finish(self) -> tuple[int, str]:
        """Write the end mark; returns (bytes, sha256), (0, "") where nothing was added."""
        if self._begun is None:
            return 0, ""
        writer, output = self._begun
        writer.close()
        return output.size, output.digest

    def _begin(self) -> tuple[TarWriter, _Output]:
        from webdataset import TarWriter  # brings torch along, two seconds: only where something is written

        output = _Output(self._stack.enter_context(atomic_write(self._path)))
        # All that it would take from clock and user is given, so that the bytes follow from the samples.
        writer = TarWriter(output, user="", group="", mode=0o644, mtime=0, encoder=False)
        self._stack.callback(_leave, writer)
        return writer, output


def _leave(writer: TarWriter) -> None:
    """Close the stream under a tar that was not finished, while its file is open: a later close would complain."""
    with suppress(OSError):  # the disk is full: that was raised already
        writer.tarstream.fileobj.close()
