"""Parts of shards from the node's cache of whole shards; a shard that is not there is fetched first."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from zerovl.data.byte_ranges import ByteRanges
from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_cache import NoRoomError, ShardCache
from zerovl.data.shards import FileRanges
from zerovl.log import logger

_ATTEMPTS = 5  # to open what was fetched, in a cache that is far too small for its users


class CachedRanges:
    """The `zerovl.data.byte_ranges.ByteRanges` of shards that lie elsewhere, through a `ShardCache`.

    Where there is no room for a shard, its parts come from `direct`, one request each; so does what is none of
    `shards`. It can be pickled.
    """

    def __init__(self, cache: ShardCache, shards: Iterable[ShardInfo], direct: ByteRanges) -> None:
        self._cache = cache
        self._shards = {shard.path: shard for shard in shards}
        self._direct = direct
        self._files = FileRanges(str(cache.folder))
        self._said = False

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes, fewer at the shard's end; raises `OSError`, `ZeroVLError`."""
        shard = self._shards.get(path)
        if shard is None:
            return self._direct.read(path, offset, size)
        name = self._cache.file_name(shard)
        for _ in range(_ATTEMPTS):
            if not self._files.has_open(name):
                self._files.close_removed()
                try:
                    self._cache.fetch(shard)
                except NoRoomError as error:
                    self._say_once(error)
                    break
            with suppress(FileNotFoundError):  # another process may have made room for something else
                return self._files.read(name, offset, size)
        return self._direct.read(path, offset, size)

    def renew(self, path: str) -> bool:
        """Return whether the copy of a shard was damaged; it is removed then."""
        self._files.close()
        return path in self._shards and self._cache.discard_if_damaged(self._shards[path])

    def close(self) -> None:
        """Close files and connections of this process."""
        self._files.close()
        self._direct.close()

    def _say_once(self, error: NoRoomError) -> None:
        if not self._said:
            logger().warning(
                f"machine.shard_cache: {error}; samples of what does not fit come by a request each, which is slow: "
                "free space on the disk, or set machine.shard_cache.size to what the disk has"
            )
            self._said = True
