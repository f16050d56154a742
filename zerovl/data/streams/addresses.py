"""Tars by address: a path, a pattern with braces or `*`, `s3://`, `pipe:`, `http://`, and what else webdataset opens.

S3 is read by the project's own client (`zerovl.s3`), with its patience; the rest by `webdataset.gopen`, which starts
`curl` for `http://` and a shell for `pipe:`.
"""

from __future__ import annotations

import glob
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from zerovl import s3
from zerovl.data.raw.records import is_debris, is_tar
from zerovl.data.raw.unread_files import unpacked_name, unread_line
from zerovl.data.stated_samples import samples_stated_beside
from zerovl.errors import ZeroVLError
from zerovl.log import logger

_SECONDS_TO_END = 5.0  # for a command after SIGTERM
_AT_ONCE = 16  # of them that are asked for at the same time


class Stream(Protocol):
    """Bytes one after the other."""

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, b"" at the end; raises `OSError`, `ZeroVLError`."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def expand(patterns: list[str], root: Path, key: str) -> list[str]:
    """Return the tars that some patterns name, in their order; paths are relative to `root`.

    Braces are expanded as webdataset does, `*` in paths, and `s3://bucket/prefix/` or `s3://.../*.tar` stand for the
    tars that are there. Raises `ZeroVLError` that begins with `key` where a pattern names none, or two name one.
    """
    from braceexpand import braceexpand

    found: list[str] = []
    for pattern in patterns:
        try:
            urls = [url for part in braceexpand(pattern) for url in _matches(part, root)]
        except ValueError:
            raise ZeroVLError(f"{key}: {pattern!r}: its braces do not close; write {{0000..0099}}") from None
        if not urls:
            raise ZeroVLError(f"{key}: {pattern!r}: there is no such tar; {_fix(pattern, root)}")
        found += urls
    if len(set(found)) < len(found):
        twice = next(url for url in found if found.count(url) > 1)
        raise ZeroVLError(f"{key}: {twice} is named twice, and its pairs would meet in a batch; name it once")
    return found


def _fix(pattern: str, root: Path) -> str:
    if not is_local(pattern) or Path(local_path(pattern)).expanduser().is_absolute():
        return "correct the address"
    return (
        f"it was looked for in {root.resolve()}: correct the path, or give an absolute one, as sweeps and flows run in "
        "checkouts that have no files beside those of Git and DVC"
    )


def _matches(address: str, root: Path) -> list[str]:
    if address.startswith(s3.PREFIX) and (address.endswith("/") or "*" in address):
        return _listed(address)
    if not is_local(address):
        return [address]
    path = str(root / Path(local_path(address)).expanduser())
    if os.path.isdir(path):
        return _tars(path, os.listdir(path))
    return [path] if os.path.exists(path) else sorted(glob.glob(path))


def _listed(address: str) -> list[str]:
    """Return the tars under a prefix, or those whose names fit a pattern with `*` behind the last `/`."""
    from fnmatch import fnmatch

    folder, _, name = address.rpartition("/")
    if "*" in folder:
        raise ZeroVLError(f"{address!r}: on S3 a * may stand behind the last / alone; name the folders one by one")
    place = s3.parse(folder)
    prefix = place.path.strip("/")
    bucket = _bucket(place.bucket)
    with bucket.explained(f"{address}: cannot list its tars"):
        pages = bucket.client.get_paginator("list_objects_v2")
        listed = pages.paginate(Bucket=bucket.name, Prefix=f"{prefix}/" if prefix else "", Delimiter="/")
        keys = [item["Key"] for page in listed for item in page.get("Contents", [])]
    if not name:
        return _tars(f"{s3.PREFIX}{bucket.name}", keys)
    return sorted(f"{s3.PREFIX}{bucket.name}/{key}" for key in keys if fnmatch(key.rpartition("/")[2], name))


def _tars(folder: str, names: list[str]) -> list[str]:
    """Return the addresses of the tars among the names of a folder, sorted; warns of compressed ones."""
    present = set(names)
    packed = sorted(name for name in names if is_tar(unpacked_name(name)) and unpacked_name(name) not in present)
    if packed:
        logger().warning(f"train.streaming: {folder}: {unread_line(packed, '.tar')}")
    return sorted(f"{folder}/{name}" for name in names if is_tar(name) and not is_debris(name.rpartition("/")[2]))


def is_local(address: str) -> bool:
    """Return whether an address is a file of this machine."""
    return urlsplit(address).scheme in ("", "file") and not address.startswith("pipe:")


def local_path(address: str) -> str:
    """Return the path that a local address is."""
    return address.removeprefix("file://").removeprefix("file:")


def open_stream(address: str) -> Stream:
    """Open a tar; raises `ZeroVLError` where that fails, and its `read` that or `OSError` where bytes do not come."""
    try:
        if is_local(address):
            return open(local_path(address), "rb")
        if address.startswith(s3.PREFIX):
            return open_object(address)
        from webdataset import gopen

        opened = gopen(address, "rb")
        return _Command(opened) if hasattr(opened, "wait_for_child") else opened
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and is_local(address):  # elsewhere it is the command that is missing
            fix = "there is no such tar any more; bring it back, or run again without it"
            raise ZeroVLError(f"{address}: {fix}") from None
        raise cannot_read(address, error) from None


def open_object(address: str, *_mode_and_buffer: object) -> Stream:
    """Open `s3://bucket/key` by the project's client; what `webdataset.gopen` calls where it is told of it."""
    place = s3.parse(address)
    return _Blocks(_bucket(place.bucket).blocks(place.path, f"{address}: cannot be read"))


def cannot_read(address: str, error: Exception) -> ZeroVLError:
    """Return what is raised where a tar cannot be read on for a reason that is not the tar's."""
    return ZeroVLError(
        f"{address}: cannot be read ({error}); check the address, the network or the disk and run again: a run "
        "resumes from its last checkpoint"
    )


class _Blocks:
    """Blocks of bytes as a stream; a block is megabytes and a read kilobytes, so the rest of one is not copied."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._at = 0  # bytes of the block that were read

    def read(self, size: int = -1) -> bytes:
        parts, left = [], size
        while left:  # below 0 to the end
            if self._at == len(self._block):
                self._block, self._at = next(self._blocks, b""), 0
                if not self._block:
                    break
            end = len(self._block) if left < 0 else min(self._at + left, len(self._block))
            parts.append(self._block[self._at : end])
            left -= end - self._at if left > 0 else 0
            self._at = end
        return b"".join(parts)

    def close(self) -> None:
        self._block, self._at = b"", 0
        self._blocks = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class _Command:
    """What a command prints, by `webdataset.gopen`'s `Pipe`, whole or with an error; it ends with its reader.

    `Pipe` looks at the exit status where the process happens to have ended already, so that a command that fails can
    look like one whose output was over. And closing it raises for a command that the closing itself has ended.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._pipe.read(size)
            if size < 0 or len(data) < size:
                self._pipe.wait_for_child()
        except OSError:
            raise OSError(f"its command ended with status {self._pipe.status}") from None
        return data

    def close(self) -> None:
        self._pipe.stream.close()
        self._pipe.proc.terminate()  # does nothing where it has ended
        try:
            self._pipe.proc.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._pipe.proc.kill()
            self._pipe.proc.wait()


def stated_samples(address: str) -> int | None:
    """Return how many samples a tar has by a file beside it; None where there is none, or nothing can lie beside it."""
    if is_local(address):
        return samples_stated_beside(local_path(address))
    return samples_stated_beside(address) if address.startswith(s3.PREFIX) else None


def count_samples(addresses: list[str]) -> tuple[int, list[str]]:
    """Return the samples of tars by the files beside them, and the tars that have no such file."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        counts = list(pool.map(stated_samples, addresses))
    unstated = [address for address, count in zip(addresses, counts, strict=True) if count is None]
    return sum(count or 0 for count in counts), unstated


@cache
def _bucket(name: str) -> s3.Bucket:
    return s3.Bucket(name)
