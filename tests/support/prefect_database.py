"""The database of a new Prefect server, made once: to bring one up from nothing takes seven seconds of a CPU."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

_NAME = "prefect.db"  # in PREFECT_HOME


def place(temporary: pytest.TempPathFactory) -> Path:
    """Return the folder in which all test processes of a session keep it."""
    own = temporary.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "prefect-database"


@contextmanager
def new_database(kept: Path, home: Path) -> Iterator[None]:
    """Let the first server of a PREFECT_HOME be started in the block, which is left as soon as the server is healthy.

    It finds the database that the first server of the session came up with, and only where it is that first one itself
    it makes one. Others wait meanwhile.
    """
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not take(kept, home):
            yield
            aside = kept / f"{_NAME}.part"
            _copy(home / _NAME, aside)
            aside.replace(kept / _NAME)
            return
    yield


def take(kept: Path, home: Path) -> bool:
    """Give a PREFECT_HOME the database that was kept; False where none was yet, and the server makes its own."""
    if not (kept / _NAME).exists():
        return False
    home.mkdir(parents=True, exist_ok=True)
    _copy(kept / _NAME, home / _NAME)
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, whoever has it open."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)
