"""One GPU job at a time on a machine: a locked file.

The kernel frees the lock when the last process that holds the file ends, however it ends; a server that
counts would have to find out. So the guard of the job's processes holds it too, not the flow alone.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from zerovl.files import try_lock

VARIABLE = "ZEROVL_LEASE"  # the name of before, which systemd units and shells have
_POLL = 1.0  # seconds


def lock_file() -> Path:
    """Return the file, the same for all users and checkouts of a machine unless `ZEROVL_LEASE` names another."""
    return Path(os.environ.get(VARIABLE) or Path(tempfile.gettempdir(), "zerovl-gpu.lease"))


@contextmanager
def hold_gpu_lock(holder: str, say: Callable[[str], None]) -> Iterator[int]:
    """Wait for the lock and hold it; gives its file descriptor, to be kept by the job's processes.

    Args:
        holder: a name for those who wait meanwhile.
        say: hears once for whom this one waits.
    """
    path = lock_file()
    descriptor = _take(path, say)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{holder}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(path: Path, say: Callable[[str], None]) -> int:
    """Return a descriptor that holds the lock of the file that has the name."""
    waiting = False
    while True:
        descriptor = _open(path)
        while not try_lock(descriptor, path):
            if not waiting:
                say(f"waiting for the GPU lock {path}: {_holder(descriptor)} has it")
                waiting = True
            time.sleep(_POLL)
        # Temporary files are cleaned away by their age: then the lock is that of a file which nobody else finds.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            if waiting:
                say("the GPU lock is free: going on")
            return descriptor
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        # Without O_CREAT first: in a sticky folder the kernel may refuse it for a file of another user.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask says: it is for all users
        return descriptor


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 400, 0).decode(errors="replace") or "someone"
