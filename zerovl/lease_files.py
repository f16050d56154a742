"""The folder and the files that leases of GPUs are: for all users of a machine, and locked by those who hold them."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import locked, try_lock
from zerovl.log import logger
from zerovl.shared_folder import denied_explained, mode_and_owner

VARIABLE = "ZEROVL_LEASE"
_FOLDER = Path("/tmp/zerovl-gpus")  # not below $TMPDIR, which is another for each job of a scheduler


@dataclass(frozen=True)
class Entry:
    """What stands in a lease or a ticket."""

    holder: str  # a name for people
    since: str  # UTC
    wants: int = 1  # devices
    of: tuple[str, ...] = ()  # those that would do

    @classmethod
    def read(cls, descriptor: int) -> Entry:
        """Return what the file says; an empty one is of somebody who has just come."""
        text = os.pread(descriptor, 1 << 16, 0).decode(errors="replace")
        with suppress(ValueError, TypeError, KeyError):
            values = json.loads(text)
            return cls(str(values["holder"]), str(values["since"]), int(values["wants"]), tuple(values["of"]))
        return cls("someone", "a moment ago")

    def write(self, descriptor: int) -> None:
        """Put it into an open file in place of what is there."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(self)).encode(), 0)


def folder() -> Path:
    """Return the folder, the same for all users and checkouts of a machine unless `ZEROVL_LEASE` names another."""
    named = os.environ.get(VARIABLE)
    if not named:
        return _FOLDER
    path = Path(named)
    return path.with_name(f"{path.name}.d") if path.is_file() else path  # the one lock of versions before


def rights_explained(place: Path) -> AbstractContextManager[None]:
    """All users write the files in the folder too."""
    fix = f"let their owner run `chmod 777 {place}; chmod 666 {place}/*`, or name another folder with {VARIABLE}"
    return denied_explained(place, f"leases of GPUs in {place}", fix)


def has_locks(place: Path) -> bool:
    """Make the folder; False, with a warning, where its file system has no locks: a run there is better than none."""
    _make(place)
    with locked(place) as sure:
        if not sure:
            logger().warning(
                f"{place}: cannot be locked, its file system has no locks; goes on without. Start one run at a time, "
                f"or name a folder on another disk with {VARIABLE}"
            )
    return sure


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True)
        place.chmod(0o777)  # not sticky: each user removes the tickets that another's killed process left
    except FileExistsError:
        if not place.is_dir():
            raise ZeroVLError(f"{place}: is not a folder; name another with {VARIABLE}") from None
    except OSError as error:
        raise ZeroVLError(f"{place}: {error.strerror}; name a folder that can be made with {VARIABLE}") from None
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise ZeroVLError(
            f"{place}: no right to write there ({mode_and_owner(place)}), and leases are files there; let its owner "
            f"run `chmod 777 {place}`, or name another folder, the same for all users, with {VARIABLE}"
        )


def held_by(path: Path) -> Entry | None:
    """Return what a file says that some process has locked; None for a file that nobody holds."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return None if try_lock(descriptor, path) else Entry.read(descriptor)
    finally:
        os.close(descriptor)


def locked_file(path: Path) -> int | None:
    """Return a descriptor that holds the lock of the file that has the name now; None where another process does."""
    while True:
        descriptor = open_file(path)
        if not try_lock(descriptor, path):
            os.close(descriptor)
            return None
        # Temporary files are cleaned away by their age: then the lock is that of a file which nobody else finds.
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def open_file(path: Path) -> int:
    """Open a lease or a ticket; one that is not there is made, for all users to lock and write."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask says: it is for all users
        return descriptor
