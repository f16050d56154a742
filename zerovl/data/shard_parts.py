"""Shards on their way into a cache: each in a file that one process writes, whether or not the disk has locks.

    FOLDER/<sha256>.part            with locks: who fetches the shard holds its lock, others wait for it
    FOLDER/<sha256>.<random>.part   without: a file for each fetch; two that want a shard at once both fetch it

Neither is taken for a shard: it gets that name once its bytes were compared with the manifest's digest.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zerovl.files import file_system_time, lock, locked, missing_locks, try_lock
from zerovl.shared_folder import open_file

SUFFIX = ".part"
LEFT_AFTER = 900.0  # seconds without a byte written; a fetch gives a server up that was away for 600


@dataclass(frozen=True, slots=True)
class Part:
    """An open file for the bytes of one shard, which nobody else writes."""

    path: Path
    descriptor: int

    @property
    def has_its_name(self) -> bool:
        """Whether the file is still at its path: it was neither renamed nor removed."""
        return is_at(self.path, self.descriptor)


class Parts(Protocol):
    """The files of a folder that shards are fetched into."""

    def held(self, sha256: str, wait: bool) -> AbstractContextManager[Part | None]:
        """Give a file for a shard; None where another process fetches it, and that is not waited for."""
        ...

    def removed_if_left(self, path: Path) -> bool:
        """Remove a file whose fetch was killed; returns whether it was so. Raises `FileNotFoundError`."""
        ...


def parts_of(folder: Path) -> Parts:
    """Return how shards on their way are kept apart in a folder: by locks where its file system has them."""
    return OwnParts(folder) if missing_locks(folder) else LockedParts(folder)


@dataclass(frozen=True)
class LockedParts:
    """One file a shard, for whoever has its lock, which ends with its process."""

    folder: Path

    @contextmanager
    def held(self, sha256: str, wait: bool) -> Iterator[Part | None]:
        """Give the file of a shard with its lock."""
        path = self.folder / (sha256 + SUFFIX)
        while True:
            descriptor = self._open(path)
            try:
                if wait:
                    lock(descriptor)
                elif not try_lock(descriptor, path):
                    yield None
                    return
                # Whoever had the lock has renamed or removed the file: then the name is free or another's.
                if is_at(path, descriptor):
                    yield Part(path, descriptor)
                    return
            finally:
                os.close(descriptor)

    def removed_if_left(self, path: Path) -> bool:
        """Remove a file whose lock nobody holds.

        The lock is held until the name is gone: who waits for it would else fill a file that then has no name.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:  # another user's, who removes it
            return False
        try:
            return try_lock(descriptor, path) and is_at(path, descriptor) and _removed(path)
        finally:
            os.close(descriptor)

    def _open(self, path: Path) -> int:
        """Open or make a file; those who share the folder never see it before it is open to them too."""
        with locked(self.folder):
            try:
                # Without O_CREAT first: in a sticky folder the kernel may refuse it for a file of another user.
                return os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return _make(path)


@dataclass(frozen=True)
class OwnParts:
    """A file for each fetch, where there are no locks: nothing is waited for, and a killed one is known by its age."""

    folder: Path

    @contextmanager
    def held(self, sha256: str, wait: bool) -> Iterator[Part | None]:
        """Give a new file."""
        if not wait and any(not _is_old(path) for path in self.folder.glob(f"{sha256}.*{SUFFIX}")):
            yield None
            return
        path = self.folder / f"{sha256}.{secrets.token_hex(8)}{SUFFIX}"
        descriptor = _make(path)
        try:
            yield Part(path, descriptor)
        finally:
            os.close(descriptor)

    def removed_if_left(self, path: Path) -> bool:
        """Remove a file that was not written to for a quarter of an hour; no other fetch has its name."""
        return _is_old(path) and _removed(path)


def is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _make(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    open_file(descriptor, path.parent)
    return descriptor


def _is_old(path: Path) -> bool:
    try:
        return file_system_time(path.parent) - path.stat().st_mtime > LEFT_AFTER
    except FileNotFoundError:  # its fetch has just ended
        return True


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except PermissionError:  # another user's, in a folder where each removes their own (sticky)
        return False
    return True
