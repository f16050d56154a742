"""The processes of helpers (`helpers.py`), without torch: started first, they import it while rank 0 does.

To import torch, timm and transformers takes a core several seconds.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zerovl import interpreter


@dataclass(frozen=True)
class Helpers:
    """Helpers that run, and the folder in which they and rank 0 meet."""

    module: str
    folder: Path
    running: dict[int, subprocess.Popen[bytes]]  # by rank, from 1

    @property
    def count(self) -> int:
        """Return how many ranks they are with rank 0."""
        return len(self.running) + 1

    def kill(self) -> None:
        """Kill those that still run."""
        for helper in self.running.values():
            helper.kill()
            helper.wait()


@contextmanager
def started(count: int, module: str) -> Iterator[Helpers]:
    """Start the helpers of `count` ranks, each `python -m MODULE`; those that still run at the end are killed."""
    with tempfile.TemporaryDirectory(prefix="zerovl-") as name:
        helpers = Helpers(module, Path(name), {})
        try:
            for rank in range(1, count):
                helpers.running[rank] = start(module, Path(name), rank, count)
            yield helpers
        finally:
            helpers.kill()


def start(module: str, folder: Path, rank: int, count: int) -> subprocess.Popen[bytes]:
    """Start one helper, which ends with this process.

    Ctrl-C reaches it too, and is held back until `help_with` ignores it: while it imports, it would end in a traceback.
    """
    command = [sys.executable, "-m", __name__, module, str(folder), str(rank), str(count), str(os.getpid())]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by what is started
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2)  # rank 0 alone has an output
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> int:
    """Be a helper: run a module as `python -m MODULE` does.

    Rank 0 waits for the helpers' imports before the work, and for their ends behind it, so both are as short as its own
    (`zerovl.interpreter`).
    """
    module = sys.argv.pop(1)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):  # a message, which Python writes
            raise
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(interpreter.of_its_own(main))
