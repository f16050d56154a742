"""A store in a folder: for one machine, or several that mount the same file system, and for a group of users.

One that a group shares (`zerovl.shared_folder`) stays writable by the group, whatever the umask of who makes what.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import disk_is_full, file_system_time, sync_folder
from zerovl.registry.stores.base import BLOCK, MissingKeyError, StoreAwayError, check_key
from zerovl.shared_folder import is_shared, make_folder, sharing_fix, unshared

_ASIDE = ".aside"
_LOST_AND_FOUND = "lost+found"  # root's own folder at the root of a file system
_STALE_SECONDS = 24 * 3600
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class FolderStore:
    """Keys are files. A key appears by `link(2)`, which fails if it exists: exclusive and whole."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    @property
    def uri(self) -> str:
        """What `open_store` takes to open this store again."""
        return str(self._folder)

    def create(self, key: str, source: Path | bytes) -> bool:
        """Write a key that does not exist yet, whole or not at all; returns False where it existed."""
        target = self._path(key)
        with self._explained("write", key):
            if target.exists():
                return False
            make_folder(target.parent, self._folder)
            with self._aside(source) as aside:
                try:
                    os.link(aside, target)
                except FileExistsError:
                    return False
            folder = target.parent
            while folder != self._folder.parent:  # new folders are entries of their parents
                sync_folder(folder)
                folder = folder.parent
        return True

    def delete(self, key: str) -> None:
        """Remove a key; who has its file open reads it to its end."""
        path = self._path(key)
        with self._explained("delete", key):
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_folder(path.parent)

    def exists(self, key: str) -> bool:
        """Return whether there is such a key."""
        path = self._path(key)
        with self._explained("read", key):
            try:
                return stat.S_ISREG(path.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def read(self, key: str) -> bytes:
        """Return all bytes of a small key; raises `MissingKeyError`."""
        return b"".join(self.blocks(key))

    def blocks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a key block by block; raises `MissingKeyError`."""
        with self._explained("read", key), open(self._path(key), "rb") as file:
            while block := file.read(BLOCK):
                yield block

    def download(self, key: str, path: Path) -> None:
        """Write a key to `path`, which is whole or absent; raises `MissingKeyError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            with open(aside, "xb") as file:
                for block in self.blocks(key):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with `prefix`, sorted."""
        start = self._folder / prefix.rpartition("/")[0]
        found = []
        with self._explained("list", prefix or "keys"):
            for folder, folders, names in _walk(start):
                folders[:] = [name for name in folders if not name.startswith(".")]
                relative = folder.relative_to(self._folder)
                found += [(relative / name).as_posix() for name in names if not name.startswith(".")]
        return sorted(key for key in found if key.startswith(prefix))

    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below `prefix` that have keys below them, sorted."""
        with self._explained("list", prefix or "keys"):
            for _, folders, _ in _walk(self._folder / prefix):
                return sorted(name for name in folders if not name.startswith("."))
        return []

    def check(self) -> str:
        """Write a probe twice; returns a sentence on it, or raises where the second one succeeds."""
        self._require_shared_throughout()
        key = f"probe-{uuid.uuid4().hex}"
        created = self.create(key, b"probe")
        try:
            exclusive = created and not self.create(key, b"again")
        finally:
            self._path(key).unlink(missing_ok=True)
        if not exclusive:
            raise ZeroVLError(f"{self.describe()}: a key could be created twice; use a folder on a POSIX file system")
        return "can be written, creation is exclusive"

    def hurried(self) -> FolderStore:
        """Return this store; raises `StoreAwayError` where its folder is gone or empty, as one that is not mounted."""
        try:
            empty = not any(self._folder.iterdir())
        except OSError as error:
            raise StoreAwayError(f"{self.describe()}: cannot be read ({error.strerror}); is it mounted?") from None
        if empty:
            raise StoreAwayError(f"{self.describe()}: nothing in it; is it mounted?")
        return self

    def describe(self) -> str:
        """Return the whole path, as messages name the store."""
        return f"folder {self._folder.absolute()}"

    def _require_shared_throughout(self) -> None:
        """Raise `ZeroVLError` that names a folder of a shared store in which its group cannot write."""
        with self._explained("list", "folders"):
            if not (self._folder.is_dir() and is_shared(self._folder)):
                return
            for folder, names, _ in _walk(self._folder):
                for path in (folder / name for name in names):  # before they are entered, which they may refuse
                    if problem := unshared(path):
                        raise ZeroVLError(
                            f"{self.describe()}: is shared by its group, {problem}; {sharing_fix(self._folder)}"
                        )

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)

    @contextmanager
    def _aside(self, source: Path | bytes) -> Iterator[Path]:
        """The bytes of `source`, synced, in a file of the same file system as the keys."""
        folder = self._folder / _ASIDE
        make_folder(folder, self._folder)
        self._remove_stale(folder)
        aside = folder / uuid.uuid4().hex
        try:
            with open(aside, "xb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with open(source, "rb") as original:
                        shutil.copyfileobj(original, file, BLOCK)
                file.flush()
                if is_shared(folder):
                    os.fchmod(file.fileno(), stat.S_IMODE(aside.stat().st_mode) | stat.S_IRGRP)
                os.fsync(file.fileno())
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    def _remove_stale(self, folder: Path) -> None:
        """A killed publisher leaves its aside file; no upload to a folder takes a day."""
        now = file_system_time(folder)
        for path in folder.iterdir():
            try:
                if now - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue  # its owner was faster

    @contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"{self.describe()}: cannot {action} {key}"
            if isinstance(error, FileNotFoundError) and action == "read":
                raise MissingKeyError(f"{self.describe()}: there is no {key}") from None
            if disk_is_full(error):
                raise ZeroVLError(f"{where}: the disk is full; free some space and run it again") from None
            if error.errno in _NO_LINKS and error.filename2:
                raise ZeroVLError(
                    f"{where}: its file system has no hard links ({error.strerror}); use a POSIX file system"
                ) from None
            if isinstance(error, PermissionError):
                raise ZeroVLError(f"{where}: {error}; {sharing_fix(self._folder)}") from None
            raise ZeroVLError(
                f"{where}: {error}; check that the folder exists and that you may {action} there"
            ) from None


def _walk(start: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Give what `os.walk` does, without root's own; one that is not there has nothing, one that is closed raises."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    for folder, folders, names in os.walk(start, onerror=refuse):
        folders[:] = [name for name in folders if name != _LOST_AND_FOUND]
        yield Path(folder), folders, names
