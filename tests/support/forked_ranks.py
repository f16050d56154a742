"""Ranks that their launcher forks, which has imported all that they import: it stays their parent.

Each is in a session of its own, as torch has it, and is called by its number: its command line is the launcher's.
"""

from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from tests.support.forked_process import be_fresh, call_it, close_others, exit_status, leave

_WORKER = "zerovl.training.worker"
NAME = "rank "  # and its number
# Laid over the launcher of a project's copy: of a factory that has imported all libraries once.
FORK_RANKS = """

if "ZEROVL_TESTS_WARM" in os.environ:
    from tests.support.forked_ranks import fork_ranks

    fork_ranks()
"""


def fork_ranks() -> None:
    """Let torch's launcher fork ranks in this process, where it would start an interpreter for each."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    SubprocessHandler._popen = lambda self, arguments, env: ForkedRank(list(arguments), env)  # type: ignore[method-assign, assignment]


class ForkedRank:
    """What torch's launcher uses of `subprocess.Popen`, of a rank that it forks."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        assert arguments[1:4] == ["-u", "-m", _WORKER], arguments
        begun, begins = os.pipe()
        gc.collect()  # what is garbage here must not close a descriptor of the rank's own later
        self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            os.setsid()
            call_it(f"{NAME}{env['RANK']}")
            os.close(begins)
            request = {"target": f"{_WORKER}:main", "arguments": arguments[4:], "env": env, "cwd": ".", "prepare": None}
            become(request, 1, 2)
        os.close(begins)
        os.read(begun, 1)  # the agent signals the group of a rank, which must be there
        os.close(begun)

    def poll(self) -> int | None:
        """The exit status where it has ended."""
        if self.returncode is None:
            with suppress(InterruptedError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit status, within so many seconds."""
        descriptor = os.pidfd_open(self.pid) if self.poll() is None else None
        if descriptor is not None:
            select.select([descriptor], [], [], timeout)
            os.close(descriptor)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(f"rank {self.pid}", timeout)
        return status


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
