"""Advisory locks between the processes of one machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
