"""Whole shards on a node's disk, fetched once for all of its processes, within a bound.

    FOLDER/<sha256>.tar     a whole shard; its time says when it was last wanted
    FOLDER/*.part           those on their way (`zerovl.data.shard_parts`)

A shard is named by the digest that the manifest has of it, and gets that name after its bytes were compared with it:
what was cut short by a kill or a power cut is never taken for whole, and shards that several projects share are there
once. Locks end with their process. Where the bound or the disk is reached, the shards that were wanted longest ago go
first; who has one of them open reads on.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from zerovl.data.manifest import ShardInfo
from zerovl.data.shard_parts import SUFFIX, Part, Parts, parts_of
from zerovl.errors import ZeroVLError
from zerovl.files import disk_is_full, locked, missing_locks, sha256_file, sync_folder
from zerovl.shared_folder import denied_explained, make_folder, sharing_fix
from zerovl.text_format import size

_WHOLE = ".tar"
SPARE = 1 << 30  # bytes of the disk that stay free, for checkpoints and whatever else is written there
_AT_ONCE = 4  # shards that a node fetches ahead of their use; each comes over several connections
_TRIES = 2  # of a fetch whose file is removed meanwhile; a disk where that goes on is read without the cache


class WholeShards(Protocol):
    """Where whole shards come from; picklable."""

    def fetch(self, shard: ShardInfo, descriptor: int) -> str:
        """Write all bytes of a shard to an open file, and return their sha256.

        Raises `OSError` or `ZeroVLError` where that fails.
        """
        ...

    def name(self, shard: ShardInfo) -> str:
        """Return how a message calls the shard."""
        ...


class NoRoomError(Exception):
    """Neither the cache's bound nor the disk has room for a shard, with all removed that may be."""


class _PartRemovedError(Exception):
    """The file of a fetch was removed by another process, which took the fetch for a killed one."""


class ShardCache:
    """Keeps at most `limit` bytes of shards in `folder`; can be pickled, and used by any number of processes."""

    def __init__(self, folder: Path, limit: int, source: WholeShards) -> None:
        self.folder = folder
        self.limit = limit
        self._source = source
        self._parts: Parts | None = None  # once the file system was asked for locks

    def file_name(self, shard: ShardInfo) -> str:
        """Return the name of a shard's file in the folder."""
        return shard.sha256 + _WHOLE

    def use(self, shard: ShardInfo) -> bool:
        """Return whether a shard is there, and keep it longer than those that were used before."""
        try:
            os.utime(self.folder / self.file_name(shard))
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's, which may be read at least, or is replaced
            return os.access(self.folder / self.file_name(shard), os.R_OK)
        return True

    def fetch(self, shard: ShardInfo, wanted: Collection[str] = (), *, wait: bool = True) -> bool:
        """Have a shard in the cache, for which those of the digests `wanted` are not removed.

        Returns:
            whether it is there: false only without `wait`, where another process is fetching it, or others enough.

        Raises:
            NoRoomError: there is no room for it.
            OSError, ZeroVLError: it cannot be fetched, or its bytes are not those of the manifest.
        """
        if self.use(shard):
            return True
        self._make_folder()
        with self._rights_explained():
            parts = self._parts = self._parts or parts_of(self.folder)
            for _ in range(_TRIES):
                with parts.held(shard.sha256, wait) as part:
                    if part is None:
                        return False
                    with suppress(_PartRemovedError):
                        return self._fetch_into(part, shard, parts, wanted, wait)
        raise NoRoomError(
            f"{self.folder}: the file of {self._source.name(shard)} was removed {_TRIES} times by another process, "
            "which took its fetch for a killed one"
        )

    def missing_locks(self) -> str:
        """Return what is different where the cache's disk has no locks, with the fix; "" where it has them."""
        self._make_folder()
        with self._rights_explained():
            reason = missing_locks(self.folder)
        return without_locks(self.folder, reason) if reason else ""

    def discard_if_damaged(self, shard: ShardInfo) -> bool:
        """Remove a shard whose file no longer has the bytes that it came with; returns whether it was so."""
        path = self.folder / self.file_name(shard)
        try:
            damaged = sha256_file(path) != shard.sha256
        except FileNotFoundError:
            return True
        if damaged:
            with self._rights_explained():
                path.unlink(missing_ok=True)
        return damaged

    def present(self, shards: Collection[ShardInfo]) -> int:
        """Return the bytes of those shards that are in the cache."""
        there = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        return sum(shard.bytes for shard in shards if self.file_name(shard) in there)

    def _make_folder(self) -> None:
        try:
            make_folder(self.folder, self.folder)
        except OSError as error:
            raise ZeroVLError(
                f"machine.shard_cache.folder {self.folder}: cannot be made ({error}); name a folder on a disk of this "
                "node"
            ) from None

    def _rights_explained(self) -> AbstractContextManager[None]:
        """Two users of a node may name one folder."""
        fix = f"{sharing_fix(self.folder)}; or name a folder of your own"
        return denied_explained(self.folder, f"machine.shard_cache.folder {self.folder}", fix)

    def _fetch_into(self, part: Part, shard: ShardInfo, parts: Parts, wanted: Collection[str], wait: bool) -> bool:
        if _is_anothers(part.descriptor, self.folder) and not self.use(shard):
            raise NoRoomError(f"{part.path}: left by a fetch of another user, who alone may remove it")
        try:
            if not wait and len(list(self.folder.glob(f"*{SUFFIX}"))) > _AT_ONCE:
                return False
            if not self.use(shard):  # else another process was faster
                self._fill(shard, part, parts, wanted)
        except OSError as error:
            if disk_is_full(error):
                raise NoRoomError(f"{self.folder}: {error}") from None
            raise
        finally:
            if part.has_its_name:  # else it was renamed, and the name may be another's
                part.path.unlink()
        return True

    def _fill(self, shard: ShardInfo, part: Part, parts: Parts, wanted: Collection[str]) -> None:
        self._reserve(shard, part, parts, wanted)
        found = self._source.fetch(shard, part.descriptor)
        os.fsync(part.descriptor)
        if not part.has_its_name:  # without locks: this process was stopped for so long
            raise _PartRemovedError
        if found != shard.sha256:
            raise ZeroVLError(
                f"{self._source.name(shard)}: its bytes have sha256 {found[:12]}..., in the manifest it is "
                f"{shard.sha256[:12]}...; put the shards of this manifest there, or make the manifest again with "
                "`dvc repro -f prepare`"
            )
        try:
            os.rename(part.path, self.folder / self.file_name(shard))
        except FileNotFoundError:  # removed since
            raise _PartRemovedError from None
        sync_folder(self.folder)

    def _reserve(self, shard: ShardInfo, part: Part, parts: Parts, wanted: Collection[str]) -> None:
        """Take the bytes of a shard from bound and disk at once, so that those who fetch at the same time see it."""
        with locked(self.folder):
            used, removable = self._inventory(part.path.name, parts, wanted)
            while True:
                full = self._taken(shard, part.descriptor, used)
                if full is None:
                    return
                if not removable:
                    raise NoRoomError(f"{self.folder}: no room for another {size(shard.bytes)}, {full}")
                path, freed = removable.pop()
                with suppress(PermissionError):  # another user's, in a folder where each removes their own (sticky)
                    path.unlink(missing_ok=True)
                    used -= freed

    def _taken(self, shard: ShardInfo, descriptor: int, used: int) -> str | None:
        """Take the bytes of a shard for an open file; returns what is full where that cannot be."""
        if used + shard.bytes > self.limit:
            return f"{size(used)} of {size(self.limit)} are in use"
        if shutil.disk_usage(self.folder).free < shard.bytes + SPARE:
            return f"less than {size(SPARE)} of the disk would stay free"
        try:
            os.posix_fallocate(descriptor, 0, shard.bytes)
        except OSError as error:
            if not disk_is_full(error):
                raise
            return str(error)
        return None

    def _inventory(self, own: str, parts: Parts, wanted: Collection[str]) -> tuple[int, list[tuple[Path, int]]]:
        """Bytes in use, and the shards that may go, those that were wanted longest ago last; removes what is left of
        fetches that were killed."""
        used, removable = 0, []
        for entry in os.scandir(self.folder):
            path = Path(entry.path)
            try:
                status = entry.stat()
                if path.suffix == SUFFIX and entry.name != own and parts.removed_if_left(path):
                    continue
            except FileNotFoundError:
                continue  # its fetch has just ended
            if path.suffix not in (_WHOLE, SUFFIX):
                continue
            used += status.st_size if entry.name != own else 0
            if path.suffix == _WHOLE and path.stem not in wanted:
                removable.append((status.st_mtime_ns, path, status.st_size))
        return used, [(path, its) for _, path, its in sorted(removable, reverse=True)]


def without_locks(folder: Path, reason: str) -> str:
    """Return what is different for a cache on a disk without locks, with the fix; `reason` is that of flock(2)."""
    return (
        f"machine.shard_cache.folder {folder}: its file system has no locks ({reason}), so that processes that want a "
        "shard at the same time each fetch it, and may pass machine.shard_cache.size by the shards that are on their "
        "way; name a folder on a disk of this node, or mount it with locks (Lustre: -o flock)"
    )


def _is_anothers(descriptor: int, folder: Path) -> bool:
    """Whether a file on its way cannot be renamed by this user, as the folder is sticky."""
    return os.fstat(descriptor).st_uid != os.geteuid() and bool(folder.stat().st_mode & stat.S_ISVTX)
