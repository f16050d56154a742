"""Ranks and helpers that their parent forks, which has imported all that they import.

A rank is in a session of its own, as torch has it, and is called by its number: its command line is the launcher's.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from tests.support.forked_process import be_fresh, call_it, close_others, exit_status, leave

_WORKER = "zerovl.training.worker"
_HELPER = "zerovl.distributed.helper_processes"
NAME = "rank "  # and its number
# Laid over the launcher of a project's copy: of a factory that has imported all libraries once.
FORK_RANKS = """

if "ZEROVL_TESTS_WARM" in os.environ:
    from tests.support.forked_ranks import fork_ranks

    fork_ranks()
"""
# Laid over what starts the helpers of an evaluation, which has been forked from the process with the libraries.
FORK_HELPERS = """

if "ZEROVL_TESTS_WARM" in os.environ:
    from tests.support.forked_ranks import ForkingSubprocess

    subprocess = ForkingSubprocess
"""


def fork_ranks() -> None:
    """Let torch's launcher fork ranks in this process, where it would start an interpreter for each."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    SubprocessHandler._popen = lambda self, arguments, env: ForkedRank(list(arguments), env)  # type: ignore[method-assign, assignment]


class _Forked:
    """What is used of `subprocess.Popen`, of a process that this one forks."""

    def __init__(
        self, target: str, arguments: Sequence[str], env: Mapping[str, str], rank: str | None = None, out: int = 1
    ) -> None:
        begun, begins = os.pipe()
        gc.collect()  # what is garbage here must not close a descriptor of the forked process's own later
        self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            if rank is not None:
                os.setsid()
                call_it(f"{NAME}{rank}")
            os.close(begins)
            request = {"target": target, "arguments": arguments, "env": dict(env), "cwd": ".", "prepare": None}
            become(request, out, 2)
        os.close(begins)
        os.read(begun, 1)  # torch's agent signals the group of a rank, which must be there
        os.close(begun)

    def poll(self) -> int | None:
        """The exit status where it has ended."""
        if self.returncode is None:
            with suppress(InterruptedError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, within so many seconds."""
        descriptor = os.pidfd_open(self.pid) if self.poll() is None else None
        if descriptor is not None:
            select.select([descriptor], [], [], timeout)
            os.close(descriptor)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout or 0.0)
        return status


class ForkedRank(_Forked):
    """What torch's launcher uses of `subprocess.Popen`, of a rank that it forks."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        assert arguments[1:4] == ["-u", "-m", _WORKER], arguments
        super().__init__(f"{_WORKER}:main", arguments[4:], env, env["RANK"])


class ForkedHelper(_Forked):
    """What an evaluation uses of `subprocess.Popen`, of a helper that it forks."""

    def __init__(self, arguments: Sequence[str], stdin: int, stdout: int) -> None:
        assert arguments[1:3] == ["-m", _HELPER], arguments
        super().__init__(f"{_HELPER}:main", arguments[3:], os.environ, out=stdout)


class ForkingSubprocess:
    """The module `subprocess` for who starts helpers."""

    DEVNULL = subprocess.DEVNULL
    Popen = ForkedHelper


def become(request: dict[str, Any], out: int, err: int) -> NoReturn:
    """Be the process that was asked for; called in a forked one, which never comes back from here."""
    from zerovl.processes import die_with_parent

    status = 1
    try:
        die_with_parent()  # what a killed session started ends with it; ranks say so once more for themselves
        os.dup2(out, 1)
        os.dup2(err, 2)
        be_fresh(request["env"])
        os.chdir(request["cwd"])
        close_others()
        sys.argv = [request["target"], *request["arguments"]]
        if request["prepare"]:
            _find(request["prepare"])()
        status = _find(request["target"])() or 0
    except SystemExit as error:
        status = exit_status(error)
    except BaseException:
        traceback.print_exc()
    leave(status)


def _find(place: str) -> Callable[[], Any]:
    module, _, name = place.partition(":")
    __import__(module)
    found: Callable[[], Any] = getattr(sys.modules[module], name)
    return found
