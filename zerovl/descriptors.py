"""How many files a process may have open, and more of them where the system allows it."""

from __future__ import annotations

import resource
from contextlib import suppress

_ENOUGH = 1 << 16  # more helps nobody, and some programs close all that they could have open, one by one


def open_files_limit() -> int:
    """Return how many files this process may have open (`ulimit -n`)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def raise_open_files_limit() -> None:
    """Raise the limit of this process, and of those that it starts, to what it may set itself; never lower it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may refuse it; the limit is then what it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
