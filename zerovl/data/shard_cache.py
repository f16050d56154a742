"""Whole shards on a node's disk, fetched once for all of its processes, within a bound.

    FOLDER/<sha256>.tar     a whole shard; its time says when it was last wanted
    FOLDER/<sha256>.part    one on its way; who fetches it holds its lock

A shard is named by the digest that the manifest has of it, and gets that name after its bytes were compared with it:
what was cut short by a kill or a power cut is never taken for whole, and shards that several projects share are there
once. Locks end with their process. Where the bound or the disk is reached, the shards that were wanted longest ago go
first; who has one of them open reads on.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from zerovl.data.manifest import ShardInfo
from zerovl.errors import ZeroVLError
from zerovl.files import disk_is_full, locked, sha256_file, sync_folder
from zerovl.shared_folder import denied_explained, make_folder, mend, open_file
from zerovl.text_format import size

_WHOLE, _PART = ".tar", ".part"
_SPARE = 1 << 30  # bytes of the disk that stay free, for checkpoints and whatever else is written there
_AT_ONCE = 4  # shards that a node fetches ahead of their use; each comes over several connections


class WholeShards(Protocol):
    """Where whole shards come from; picklable."""

    def fetch(self, shard: ShardInfo, descriptor: int) -> None:
        """Write all bytes of a shard to an open file; raises `OSError` or `ZeroVLError` where that fails."""
        ...

    def name(self, shard: ShardInfo) -> str:
        """Return how a message calls the shard."""
        ...


class NoRoomError(Exception):
    """Neither the cache's bound nor the disk has room for a shard, with all removed that may be."""


class ShardCache:
    """Keeps at most `limit` bytes of shards in `folder`; can be pickled, and used by any number of processes."""

    def __init__(self, folder: Path, limit: int, source: WholeShards) -> None:
        self.folder = folder
        self.limit = limit
        self._source = source

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
        part = self.folder / (shard.sha256 + _PART)
        with self._rights_explained(), _held(part, wait) as descriptor:
            if descriptor is None:
                return False
            if _is_anothers(descriptor, self.folder) and not self.use(shard):
                raise NoRoomError(f"{part}: left by a fetch of another user, who alone may remove it")
            try:
                if not wait and len(list(self.folder.glob(f"*{_PART}"))) > _AT_ONCE:
                    return False
                if not self.use(shard):  # else another process was faster
                    self._fill(shard, part, descriptor, wanted)
            except OSError as error:
                if disk_is_full(error):
                    raise NoRoomError(f"{self.folder}: {error}") from None
                raise
            finally:
                if _is_at(part, descriptor):  # else it was renamed, and the name may be another's
                    part.unlink()
        return True

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
        fix = f"{mend(self.folder)}; or name a folder of your own"
        return denied_explained(self.folder, f"machine.shard_cache.folder {self.folder}", fix)

    def _fill(self, shard: ShardInfo, part: Path, descriptor: int, wanted: Collection[str]) -> None:
        self._reserve(shard, part, descriptor, wanted)
        self._source.fetch(shard, descriptor)
        os.fsync(descriptor)
        found = sha256_file(part)
        if found != shard.sha256:
            raise ZeroVLError(
                f"{self._source.name(shard)}: its bytes have sha256 {found[:12]}..., in the manifest it is "
                f"{shard.sha256[:12]}...; put the shards of this manifest there, or make the manifest again with "
                "`dvc repro -f prepare`"
            )
        os.rename(part, self.folder / self.file_name(shard))
        sync_folder(self.folder)

    def _reserve(self, shard: ShardInfo, part: Path, descriptor: int, wanted: Collection[str]) -> None:
        """Take the bytes of a shard from bound and disk at once, so that those who fetch at the same time see it."""
        with locked(self.folder):
            used, removable = self._inventory(part.name, wanted)
            while True:
                full = self._taken(shard, descriptor, used)
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
        if shutil.disk_usage(self.folder).free < shard.bytes + _SPARE:
            return f"less than {size(_SPARE)} of the disk would stay free"
        try:
            os.posix_fallocate(descriptor, 0, shard.bytes)
        except OSError as error:
            if not disk_is_full(error):
                raise
            return str(error)
        return None

    def _inventory(self, own: str, wanted: Collection[str]) -> tuple[int, list[tuple[Path, int]]]:
        """Bytes in use, and the shards that may go, those that were wanted longest ago last; removes what is left of
        fetches that were killed."""
        used, removable = 0, []
        for entry in os.scandir(self.folder):
            path = Path(entry.path)
            try:
                status = entry.stat()
                if path.suffix == _PART and entry.name != own and _removed_if_left(path):
                    continue
            except FileNotFoundError:
                continue  # its fetch has just ended
            if path.suffix not in (_WHOLE, _PART):
                continue
            used += status.st_size if entry.name != own else 0
            if path.suffix == _WHOLE and path.stem not in wanted:
                removable.append((status.st_mtime_ns, path, status.st_size))
        return used, [(path, its) for _, path, its in sorted(removable, reverse=True)]


@contextmanager
def _held(part: Path, wait: bool) -> Iterator[int | None]:
    """Give the open file `part` with its lock; None where another process has it and is not waited for."""
    while True:
        descriptor = _open(part)
        try:
            if not _lock(descriptor, part, wait):
                yield None
                return
            # Whoever had the lock has renamed or removed the file: then the name is free or another's.
            if _is_at(part, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _open(part: Path) -> int:
    """Open or make a file on its way; those who share the folder never see it before it is open to them too."""
    with locked(part.parent):
        try:
            # Without O_CREAT first: in a sticky folder the kernel may refuse it for a file of another user.
            return os.open(part, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            open_file(descriptor, part.parent)
            return descriptor


def _lock(descriptor: int, path: Path, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise ZeroVLError(
            f"{path.parent}: its file system has no locks ({error}); set machine.shard_cache.folder to a folder on a "
            "disk of this node"
        ) from None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_anothers(descriptor: int, folder: Path) -> bool:
    """Whether a file on its way cannot be renamed by this user, as the folder is sticky."""
    return os.fstat(descriptor).st_uid != os.geteuid() and bool(folder.stat().st_mode & stat.S_ISVTX)


def _removed_if_left(part: Path) -> bool:
    """Remove a file on its way whose lock nobody holds, as its process was killed; returns whether it was so.

    The lock is held until the name is gone: who waits for it would else fill a file that then has no name.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:  # another user's, who removes it
        return False
    try:
        left = _lock(descriptor, part, wait=False) and _is_at(part, descriptor)
        if left:
            try:
                part.unlink()
            except PermissionError:  # another user's, in a folder where each removes their own (sticky)
                return False
        return left
    finally:
        os.close(descriptor)
