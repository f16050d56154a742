"""Shards from S3, in parts by ranged GET or whole over many connections (see `zerovl.s3` for endpoint and credentials).

A server that is away is waited for: a training of days should outlive its restart.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from zerovl import s3
from zerovl.data.manifest import ShardInfo
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.s3_files import in_threads

PART = 8 << 20  # bytes of a shard that one request asks for

Result = TypeVar("Result")


@dataclass(frozen=True)
class Outages:
    """How long a server that does not answer is asked again, beyond the attempts of each request."""

    seconds: float = 600.0
    pause: float = 5.0


class S3Ranges:
    """The `zerovl.data.byte_ranges.ByteRanges` under s3://bucket/prefix; picklable and safe to use after a fork."""

    def __init__(
        self, root: str, connections: int = 1, outages: Outages | None = None, patience: s3.Patience | None = None
    ) -> None:
        place = s3.parse(root)
        prefix = place.path.strip("/")
        self._bucket = s3.Bucket(place.bucket, patience, connections)
        self._prefix = f"{prefix}/" if prefix else ""
        self._outages = outages or Outages()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes.

        Raises:
            FileNotFoundError: there is no such object.
            ZeroVLError: there is no such bucket, it may not be read, or there are no credentials.
            OSError: anything else, which may be another thing the next time.
        """
        key = self._prefix + path
        where = f"{s3.PREFIX}{self._bucket.name}/{key}: cannot be read"

        def read() -> bytes:
            return b"".join(self._bucket.blocks(key, where, offset, offset + size))

        try:
            return _through_outages(read, self._outages)
        except s3.AnswerError as error:
            if error.is_missing_key:
                raise FileNotFoundError(key) from None
            if error.is_past_the_end:
                return b""
            if error.is_refusal:
                raise ZeroVLError(str(error)) from None
            raise OSError(f"S3 answers {error.code}: {error}") from None
        except s3.NoAnswerError as error:
            raise OSError(str(error)) from None

    def renew(self, _path: str) -> bool:
        """Return False: nothing is kept here."""
        return False

    def close(self) -> None:
        """Close the connections of this process."""
        self._bucket.close()

    def open(self) -> None:
        """Make the client of this process, which several threads then share."""
        _ = self._bucket.client


class S3Shards:
    """The `zerovl.data.shard_cache.WholeShards` under s3://bucket/prefix."""

    def __init__(self, root: str, connections: int, ranges: S3Ranges | None = None) -> None:
        self._root = root.rstrip("/")
        self._connections = connections
        self._ranges = ranges or S3Ranges(root, connections)

    def name(self, shard: ShardInfo) -> str:
        """Return the shard's address."""
        return f"{self._root}/{shard.path}"

    def fetch(self, shard: ShardInfo, descriptor: int) -> str:
        """Write a shard to an open file, part by part over several connections; returns the sha256 of what came.

        Raises `FileNotFoundError`, `OSError`. What is missing at its end stays what the file had there.
        """

        def fetch(start: int) -> None:
            block = self._ranges.read(shard.path, start, min(PART, shard.bytes - start))
            written = 0
            while written < len(block):
                written += os.pwrite(own, block[written:], start + written)
            digest.add(start, block)

        self._ranges.open()
        # Threads that an interrupt leaves behind must not write into what is opened next under the caller's number.
        own = os.dup(descriptor)
        digest = _Digest(own)
        try:
            in_threads(fetch, range(0, shard.bytes, PART), self._connections)
        except Exception:  # after which no thread is left, other than after an interrupt
            os.close(own)
            raise
        os.close(own)
        return digest.hexdigest()


class _Digest:
    """The sha256 of a file whose parts come in any order, computed while others are still on their way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._sha256 = hashlib.sha256()
        self._end = 0  # of what it covers
        self._behind: dict[int, int] = {}  # bytes of parts behind a gap, by their start
        self._lock = threading.Lock()

    def add(self, start: int, block: bytes) -> None:
        """Take a part that the file has now; one that came before its turn is read from there later, to save memory."""
        with self._lock:
            self._behind[start] = len(block)
            while (size := self._behind.pop(self._end, 0)) > 0:
                self._sha256.update(block if self._end == start else os.pread(self._descriptor, size, self._end))
                self._end += size

    def hexdigest(self) -> str:
        """Return it, of all parts up to the first that is missing."""
        return self._sha256.hexdigest()


class S3Files:
    """Whole files on S3 by their address: `ByteRanges` and `WholeShards` in one, of any bucket; picklable."""

    def __init__(self, connections: int = 1) -> None:
        self._connections = connections
        self._buckets: dict[str, S3Ranges] = {}

    def name(self, shard: ShardInfo) -> str:
        """Return the file's address."""
        return shard.path

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes of s3://bucket/key; raises `FileNotFoundError`, `OSError`."""
        place = s3.parse(path)
        return self._ranges(place.bucket).read(place.path, offset, size)

    def fetch(self, shard: ShardInfo, descriptor: int) -> str:
        """Write a file to an open one, as `S3Shards.fetch`."""
        place = s3.parse(shard.path)
        bucket = S3Shards(f"{s3.PREFIX}{place.bucket}", self._connections, self._ranges(place.bucket))
        return bucket.fetch(replace(shard, path=place.path), descriptor)

    def renew(self, _path: str) -> bool:
        """Return False: nothing is kept here."""
        return False

    def close(self) -> None:
        """Close the connections of this process."""
        for ranges in self._buckets.values():
            ranges.close()

    def _ranges(self, bucket: str) -> S3Ranges:
        if bucket not in self._buckets:
            self._buckets[bucket] = S3Ranges(f"{s3.PREFIX}{bucket}", self._connections)
        return self._buckets[bucket]


def _through_outages(read: Callable[[], Result], outages: Outages) -> Result:
    """What `read` returns, tried again while the server gives no answer or says that it cannot."""
    end = time.monotonic() + outages.seconds
    said = False
    while True:
        try:
            return read()
        except (s3.NoAnswerError, s3.AnswerError) as error:
            away = isinstance(error, s3.NoAnswerError) or error.status >= 500
            if not away or time.monotonic() > end:
                raise
            if not said:
                logger().warning(f"{error}; asking again for up to {outages.seconds / 60:.3g} minutes")
                said = True
            time.sleep(outages.pause)
