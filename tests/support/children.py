"""Processes that a test has started, by what /proc says."""

import os
from collections.abc import Callable
from pathlib import Path

Children = Callable[[], list[int]]


def children_of(parent: int) -> list[int]:
    """Process ids of the children of a process that are alive, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, its_parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_parent) == parent and state != "Z":
            found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def started_from_now_on() -> Children:
    """What gives the children of this process that are alive and were not there when this was called.

    Other tests of this process leave helpers of multiprocessing behind (a resource tracker).
    """
    before = set(children_of(os.getpid()))
    return lambda: [pid for pid in children_of(os.getpid()) if pid not in before]
