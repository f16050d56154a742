"""Whether the node's cache of shards works where `machine.shard_cache` puts it: before a training waits for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

from zerovl import s3
from zerovl.data.open_shards import node_cache
from zerovl.data.shard_cache import SPARE, ShardCache, without_locks
from zerovl.files import missing_locks
from zerovl.params import Params
from zerovl.shared_folder import denied
from zerovl.text_format import size

_FOLDER, _ROOM = "machine.shard_cache.folder", "machine.shard_cache.size"


def findings(params: Params) -> Iterator[tuple[str, str]]:
    """Yield levels of `zerovl doctor` and sentences: can the folder be written and locked, and has its disk the room.

    Nothing where these parameters read nothing through the cache. A folder that is not there is not made: what the
    disk of those above allows is said.
    """
    if not _is_used(params):
        return
    cache = node_cache(params.machine)
    # Not Path.exists, which raises where a folder above is closed.
    place = next(path for path in (cache.folder, *cache.folder.absolute().parents) if os.path.exists(path))
    try:
        reason = missing_locks(place)
    except PermissionError as error:
        yield "FAIL", f"{_FOLDER} {cache.folder}: {denied(error, place)}; open it to you, or name a folder of your own"
        return
    except OSError as error:
        yield "FAIL", f"{_FOLDER} {cache.folder}: cannot be written ({error}); name a folder on a disk of this node"
        return
    if reason:
        yield "note", without_locks(cache.folder, reason)
    room = shutil.disk_usage(place).free + _kept(cache) - SPARE
    if room < cache.limit:
        yield (
            "note",
            f"{_ROOM} {params.machine.shard_cache.size}: the disk of {cache.folder} has room for {size(max(room, 0))}, "
            "and shards past that push others out before their time; name a folder on a larger disk, or lower the size",
        )
    elif not reason:
        yield "ok", f"{cache.folder} can be written and locked, and has room for {size(cache.limit)} of shards"


def _is_used(params: Params) -> bool:
    """Whether shards or tars of these parameters are read from elsewhere, through the cache."""
    in_place = (source.path for source in params.data.sources if source.tars == "in_place")
    away = any(path.startswith(s3.PREFIX) for path in (params.machine.shards, *in_place))
    return away or bool(params.machine.keep_streams and params.train.streamed)


def _kept(cache: ShardCache) -> int:
    """Bytes of the disk that the cache has already."""
    total = 0
    for path in cache.folder.glob("*"):
        with suppress(FileNotFoundError):  # removed meanwhile
            total += path.stat().st_size
    return total
