"""How a forked process begins and ends as one does that was started: streams, signals, environment, exit status."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

_PR_SET_NAME = 15  # from <sys/prctl.h>


def be_fresh(env: Mapping[str, str]) -> None:
    """Give this process streams, signals and environment as an interpreter has them when it starts."""
    lines = 1 if env.get("PYTHONUNBUFFERED") else -1
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=lines, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.environ.clear()
    os.environ.update(env)


def close_others(keep: Sequence[int] = ()) -> None:
    """Leave no descriptor of the parent open: a pipe or a lock would live on with this process."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with suppress(OSError):
                os.close(int(name))


def call_it(name: str) -> None:
    """Give this process a name, for `psutil.Process.name`: its command line is that of the process that forked it."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def exit_status(error: SystemExit) -> int:
    """Return the status that Python would end with; says what it would say."""
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def leave(status: int) -> NoReturn:
    """End as an interpreter ends, without the tear-down of modules that the parent shares."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(status)
