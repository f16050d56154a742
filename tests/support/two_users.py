"""Two real users of a group, which root alone can act as; each is a child process."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ANNA, BERT, GROUP, OTHER_GROUP = 61001, 61002, 61010, 61011

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two other users")


@contextmanager
def folder_of_the_group(name: str) -> Iterator[Path]:
    """Give a folder that is Anna's, and shared by the group; it lies where both may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="zerovl-group-") as above:
        os.chmod(above, 0o755)
        folder = Path(above, name)
        folder.mkdir()
        os.chown(folder, ANNA, GROUP)
        folder.chmod(0o2770)
        yield folder


def as_user(user: int, umask: int, work: Callable[[], object], group: int = GROUP) -> None:
    """Do `work` in a child process of that user, whose own group is another one.

    What `work` imports has to be imported before: the user need not be able to read this Python.
    """

    def as_that_user() -> None:
        os.setgroups([group])
        os.setgid(OTHER_GROUP)
        os.setuid(user)
        os.umask(umask)
        work()

    in_a_child(as_that_user)


def in_a_child(work: Callable[[], object]) -> None:
    """Do `work` in a process forked from this one; what it raises is printed, and fails the test."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
