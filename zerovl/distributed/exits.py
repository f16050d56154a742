"""How a rank ends: its status, its last word, and how it keeps torchrun from starting it again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist

from zerovl import log
from zerovl.files import atomic_write

CRASHED = 1  # an error that is nobody's message: its traceback is shown
FAILED = 2  # a ZeroVLError: the same again would fail the same way
INTERRUPTED = 3  # saved, run it again to go on
LOST_PEER = 4  # another rank is gone
STUCK = 5  # the watchdog ended the group
FINAL = (FAILED, INTERRUPTED)  # not to be started again

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # of this rank; torchrun shows what it holds as the cause
_CONSEQUENCE_SECONDS = 60
# What NCCL and torch write of a connection that broke, in small letters. "socket" alone would not do: NCCL's
# general explanation of a system error has it, which is also that of shared memory that is too small.
_LOST_PEER_SIGNS = (
    "ncclremoteerror",
    "remote process exited",
    "connection closed",
    "closed by peer",
    "connection was likely closed",
    "connection reset",
    "connection refused",
    "connection aborted",
    "connection timed out",
    "broken pipe",
    "no route to host",
    "network is unreachable",
    "got completion from peer",  # by InfiniBand, with an error
    "socket timeout",
    "wait timeout after",  # for what another rank puts into the store
    "application crash on rank",
    "collective operation timeout",
)


def say(text: str) -> None:
    """Print to stderr; one that is a closed pipe or on a full disk must not keep a rank from ending.

    Not by the log, whose lock a thread that is stuck may hold.
    """
    with suppress(OSError, ValueError):
        print(f"{log.line(text)}\n", end="", file=sys.stderr, flush=True)  # at once, or lines of several ranks mix


def say_in_handler(text: str) -> None:
    """Print to stderr from a signal handler, which may have come in the middle of a write to `sys.stderr`."""
    with suppress(OSError):
        os.write(2, f"\n{log.line(text)}\n".encode())  # on a line of its own: a progress bar has no end


def write_error_file(text: str, *, consequence: bool = False) -> None:
    """Tell the launcher why this rank ends; the first word counts.

    torchrun takes the failure with the earliest time as the cause, so a `consequence` of another
    rank's end is dated later.
    """
    path = os.environ.get(_ERROR_FILE)
    if not path:
        return
    word = {"message": text, "timestamp": int(time.time()) + _CONSEQUENCE_SECONDS * consequence}
    try:
        if not Path(path).exists():
            with atomic_write(path, "w") as file:
                json.dump(word, file)
    except OSError as error:
        say(f"zerovl train: {path}: {error}")  # a full disk must not hide the cause itself


def read_error_file(path: str) -> str:
    """What a rank left in its error file, or nothing."""
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def peer_is_gone(error: BaseException) -> bool:
    """Whether a collective failed because another rank ended; gloo has no exception type of its own.

    NCCL raises one type for everything, so its text decides. In doubt the failure is this rank's own: that is
    shown whole and told to the others, while a lost peer leaves it to the lost one to say why.
    """
    if isinstance(error, RuntimeError) and "gloo" in str(error):
        return True
    if isinstance(error, dist.DistBackendError):
        text = str(error).lower()
        return any(sign in text for sign in _LOST_PEER_SIGNS)
    return isinstance(error, dist.DistError)


def summary_line(error: BaseException) -> str:
    """The line of an error of torch.distributed that says most.

    The last one, where NCCL tells what it saw; stacks of C++ that may follow are left out.
    """
    lines = str(error).partition("Exception raised from")[0].strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def end_agent() -> None:
    """Under `torchrun --max-restarts N`: ask this node's agent to end, so that it starts nothing again.

    torchrun restarts after any status but 0. On SIGTERM it ends its other ranks and leaves without.
    """
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0 and os.getppid() > 1:
        with suppress(OSError):  # it may end at this moment
            os.kill(os.getppid(), signal.SIGTERM)


def leave(status: int) -> None:
    """End this process from any thread, whatever the others are blocked in and wherever its output goes."""
    try:
        if status in FINAL:
            end_agent()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(status)
