"""Advisory locks between the processes of one machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold an existing folder's lock; waits for it. The lock ends with its process and leaves no file.

    Yields:
        False where the file system has no such locks: then the caller is not alone, and works aside.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # some network file systems
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
