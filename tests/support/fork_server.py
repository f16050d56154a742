"""Start `zerovl` as a process of its own without its imports: one interpreter imports once and forks each start.

`import torch`, `timm` and `transformers` take about ten seconds of a processor, a training in the tests one.
A forked process has its own working directory, environment, standard streams, signals and process id; what the
real command adds (arguments of the interpreter, a fresh import) is shown by the tests that start it.
Ranks are forked too: by the launcher, which stays their parent, each in a session of its own as torch has it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from tests.support.forked_process import be_fresh, call_it, close_others, exit_status, leave
from tests.support.paths import ROOT

_MODULE = "tests.support.fork_server"
_WORKER = "zerovl.training.worker"


class Forked:
    """A forked process, with what the tests use of `subprocess.Popen[str]`."""

    def __init__(self, pid: int, ended: socket.socket, stdout: int | None, stderr: int | None) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended
        self.stdout = None if stdout is None else os.fdopen(stdout, encoding="utf-8")
        self.stderr = None if stderr is None else os.fdopen(stderr, encoding="utf-8")

    def poll(self) -> int | None:
        """The exit status where the process has ended, None before."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, as soon as there is one."""
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout or 0.0)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What was written to both streams, once the process and all that share them have ended."""
        said = ["", ""]

        def read(place: int, stream: Any) -> None:
            said[place] = stream.read()

        streams = [(place, stream) for place, stream in enumerate((self.stdout, self.stderr)) if stream]
        readers = [threading.Thread(target=read, args=stream, daemon=True) for stream in streams]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout or 0.0)
        for _, stream in streams:
            stream.close()
        self.wait(timeout)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            word = self._ended.recv(64)
            assert word, "the fork server is gone"
            self.returncode = int(word)
            self._ended.close()
        return self.returncode


class ForkServer:
    """The interpreter that has imported everything; one a session of tests, started when it is first needed."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(other.fileno())],
            cwd=ROOT,
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
        )
        other.close()

    def start(
        self,
        target: str,
        *arguments: str,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        merge: bool = False,
        prepare: str | None = None,
    ) -> Forked:
        """Fork a process that calls `target` (module:function) with `sys.argv[1:]` set to `arguments`.

        Args:
            env: its whole environment; by default that of this process.
            merge: stderr goes where stdout goes.
            prepare: module:function that is called first, to change what the process imports or calls.
        """
        ours, theirs = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = (None, out_end) if merge else os.pipe()
        request = {
            "target": target,
            "arguments": arguments,
            "cwd": str(cwd),
            "env": dict(os.environ if env is None else env),
            "prepare": prepare,
        }
        socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno(), out_end, err_end])
        theirs.close()
        for end in {out_end, err_end}:
            os.close(end)
        word = ours.recv(64)
        assert word, "the fork server is gone"
        return Forked(int(word), ours, out, err)

    def stop(self) -> None:
        """End it, and with it every process that it forked and that still runs."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()


_server: ForkServer | None = None


def server() -> ForkServer:
    """The server of this session."""
    global _server
    if _server is None:
        _server = ForkServer()
        atexit.register(_server.stop)
    return _server


def run_forked(target: str, *arguments: str, timeout: float) -> str:
    """Call `target` in a forked process in the project's folder, to its end; returns what it printed."""
    child = server().start(target, *arguments)
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        raise
    assert child.returncode == 0, f"{target} {arguments}\n{out[-4000:]}\n{err[-8000:]}"
    return out


def start_zerovl(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Forked:
    """`python -m zerovl.cli ARGUMENTS`, forked."""
    return server().start("zerovl.cli:main", *arguments, cwd=cwd, env=env)


# -- inside the server


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
                _become(json.loads(message), out, err, keep=())
            os.close(out)
            if err != out:
                os.close(err)
            os.write(told, str(pid).encode())
            running[os.pidfd_open(pid)] = pid, told


def _become(request: dict[str, Any], out: int, err: int, keep: Sequence[int]) -> NoReturn:
    """Be the process that was asked for; called in a forked one, which never comes back from here."""
    from zerovl.processes import die_with_parent

    status = 1
    try:
        die_with_parent()  # what a killed session started ends with it; ranks say so once more for themselves
        os.dup2(out, 1)
        os.dup2(err, 2)
        be_fresh(request["env"])
        os.chdir(request["cwd"])
        close_others(keep)
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
            _become(request, 1, 2, keep=())
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
    sys.modules[_MODULE] = sys.modules["__main__"]
    _serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
