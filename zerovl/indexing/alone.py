"""Keep other processes from working on the folder of an index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import try_lock


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is not there, so that no other process updates it.

    Raises:
        ZeroVLError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ZeroVLError(f"{folder}: cannot be made ({error.strerror}); name another folder") from None
    try:
        if not try_lock(descriptor, folder):
            raise ZeroVLError(f"{folder}: another process is working on it; wait for its end")
        yield
    finally:
        os.close(descriptor)
