"""Files that are either whole or absent, their digests, locks between processes, and disks that are full."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.shared_folder import make_folder, open_to_group

_BLOCK = 1 << 20
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)  # of flock(2), by some network file systems


@contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write `path` aside, sync it, then rename it: readers see the old file or the whole new one.

    The aside file is removed when the block raises, so a full disk leaves nothing behind. In a folder that a group
    shares the group may read and write the file, and enter the folders that are made for it, whatever the umask says.
    """
    path = Path(path)
    make_folder(path.parent, path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(aside, mode, encoding=encoding) as file:
            open_to_group(file.fileno(), path.parent)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """Give the file that the block writes the mode that any new file has there, by umask and folder.

    safetensors writes a file of its own with 0600 and renames it, whatever the umask says. In a folder that a group
    shares the group may read and write it, whatever the umask says.
    """
    path.unlink(missing_ok=True)
    with open(path, "xb") as file:
        open_to_group(file.fileno(), path.parent)
    mode = stat.S_IMODE(path.stat().st_mode)
    yield
    path.chmod(mode)


def sync_folder(folder: Path) -> None:
    """Make the renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make the contents of all files below `folder` survive a power cut; before a rename makes them visible."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, a quota or the largest file size is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def file_system_time(folder: Path) -> float:
    """Return the time that files of a folder are stamped with now, in seconds as `st_mtime` has it.

    On a network file system that is its server's, from which the clocks of the nodes that share it may differ.

    Raises:
        OSError: no file can be made there.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        os.utime(file.fileno())
        return os.fstat(file.fileno()).st_mtime


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold an existing folder's lock alone; waits for it. The lock ends with its process and leaves no file.

    Yields:
        False where the file system has no such locks: then the caller is not alone, and works aside.
    """
    with _flock(folder, fcntl.LOCK_EX) as held:
        yield held


@contextmanager
def shared(folder: Path) -> Iterator[bool]:
    """Hold an existing folder's lock together with other readers; waits while someone holds it alone."""
    with _flock(folder, fcntl.LOCK_SH) as held:
        yield held


@contextmanager
def locked_if_free(folder: Path) -> Iterator[bool]:
    """As `locked`, without waiting: yields False where anyone holds the lock, or there are no locks."""
    with _flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
        yield held


def try_lock(descriptor: int, path: Path) -> bool:
    """Take the lock of the open file `path` alone, without waiting; false where another process holds it.

    True too, with a warning, where the file system has no locks: a run on such a disk is better than none.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _warn_no_locks(path, os.strerror(error.errno))
    return True


def lock(descriptor: int) -> None:
    """Take the lock of an open file alone; waits for it. Raises `OSError` where the file system has no locks."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def missing_locks(folder: Path) -> str:
    """Return what flock(2) says where the file system of a folder has no locks; "" where it has them.

    Raises:
        OSError: no file can be made there.
    """
    with tempfile.TemporaryFile(dir=folder) as file:  # of a file: NFS locks no folder, whatever else it locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return os.strerror(error.errno)
    return ""


@cache
def _warn_no_locks(path: Path, reason: str) -> None:
    """Once a process and file."""
    logger().warning(
        f"{path}: cannot be locked, its file system has no locks ({reason}); goes on without. Nothing keeps another "
        "process from doing the same at the same time: start one only, or mount the disk with locks (Lustre: -o flock)"
    )


@contextmanager
def _flock(folder: Path, operation: int) -> Iterator[bool]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, operation)
        except OSError:  # some network file systems; or held by others, where we do not wait
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Digest of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path | str, value: Any) -> None:
    """Write readable JSON with a stable layout (so that DVC sees equal content as equal)."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: Path | str) -> Any:
    """Read JSON; a missing or broken file is a `ZeroVLError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ZeroVLError(f"{path}: no such file; run the stage that makes it first (`dvc repro`)") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ZeroVLError(f"{path}: not valid JSON ({error}); delete it and make it again") from None


def read_json_lines(path: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines, none where there is no file; a last line cut by a kill is left out."""
    path = Path(path)
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
