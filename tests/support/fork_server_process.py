"""The interpreter of `fork_server`: it has imported everything, and forks each process that it is asked for.

Ranks are forked too: by the launcher, which stays their parent, each in a session of its own as torch has it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from tests.support.forked_process import be_fresh, call_it, close_others, exit_status, leave

_WORKER = "zerovl.training.worker"


def _serve(requests: socket.socket) -> None:
    running: dict[int, tuple[int, int]] = {}  # by pidfd: process id, and where its end is told
    while True:
        ready, _, _ = select.select([requests, *running], [], [])
        for one in ready:
            if one is not requests:
                pid, told = running.pop(one)
                os.close(one)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError):  # nobody waits for it
                    os.write(told, str(status).encode())
                os.close(told)
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
            if not message:
                return
            told, out, err = descriptors
            pid = os.fork()
            if pid == 0:
                _become(json.loads(message), out, err)
            os.close(out)
            if err != out:
                os.close(err)
            os.write(told, str(pid).encode())
            running[os.pidfd_open(pid)] = pid, told


def _become(request: dict[str, Any], out: int, err: int) -> NoReturn:
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


class _ForkedRank:
    """What torch's launcher uses of `subprocess.Popen`, of a rank that it forks."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        assert arguments[1:4] == ["-u", "-m", _WORKER], arguments
        begun, begins = os.pipe()
        gc.collect()  # what is garbage here must not close a descriptor of the rank's own later
        self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            os.setsid()
            call_it(f"rank {env['RANK']}")
            os.close(begins)
            request = {"target": f"{_WORKER}:main", "arguments": arguments[4:], "env": env, "cwd": ".", "prepare": None}
            _become(request, 1, 2)
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


def _import_everything() -> None:
    with suppress(ImportError):  # the engine's tests run without DVC too: `make test-oldest`
        import dvc.repo  # noqa: F401, which dvclive imports late
        import dvclive  # noqa: F401
    import torch.distributed.run  # noqa: F401
    import transformers.models.bert.modeling_bert  # noqa: F401
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    import tests.support.fork_server  # noqa: F401, as what is forked may ask for processes of its own
    import zerovl.cli
    import zerovl.training.launch  # noqa: F401
    from zerovl import code_closure

    code_closure.digests("train")  # a second of every start, and kept by the module
    gc.collect()
    gc.freeze()  # a collection in a forked process has only its own objects to look at
    SubprocessHandler._popen = lambda self, arguments, env: _ForkedRank(list(arguments), env)  # type: ignore[method-assign, assignment]


def _main(descriptor: int) -> None:
    from zerovl.processes import die_with_parent

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this one
    _import_everything()
    _serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
