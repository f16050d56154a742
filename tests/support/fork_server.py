"""Start `zerovl` as a process of its own without its imports: one interpreter imports once and forks each start.

`import torch`, `timm` and `transformers` take about ten seconds of a processor, a training in the tests one.
A forked process has its own working directory, environment, standard streams, signals and process id; what the
real command adds (arguments of the interpreter, a fresh import) is shown by the tests that start it. That interpreter
is `fork_server_process`, one for all workers of a run of the tests; here is what asks it.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

_PROGRAM = ("-m", "tests.support.fork_server_process")
_RUN = "PYTEST_XDIST_TESTRUNUID"  # the same in all workers of a run


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
    """A connection to the interpreter that has imported everything: one for all workers of a run of the tests."""

    def __init__(self, run: str) -> None:
        """Connect to the interpreter of a run, and start it where this is the first that needs it."""
        self._process: subprocess.Popen[bytes] | None = None
        while (connection := self._connection(f"\0zerovl-fork-server-{run}")) is None:
            assert self._process is None or self._process.poll() is None, "the fork server has not started"
        self._socket = connection

    def _connection(self, address: str) -> socket.socket | None:
        """Return one that is answered; None from an interpreter that was about to end, or has yet to listen."""
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(address)  # which is of no file, and goes with who listens
            except OSError:
                pass  # another process was the first
            else:
                listener.listen(64)
                words = [sys.executable, *_PROGRAM, str(listener.fileno())]
                self._process = subprocess.Popen(
                    words, cwd=ROOT, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL
                )
        connection = socket.socket(socket.AF_UNIX)
        with suppress(ConnectionError):
            connection.connect(address)
            if connection.recv(1):
                return connection
        connection.close()
        time.sleep(0.05)
        return None

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
        """End every process that was started here and still runs; the interpreter ends with its last connection."""
        self._socket.close()
        if self._process and _RUN not in os.environ:  # other workers of the run may need it still
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()


_server: ForkServer | None = None


def server() -> ForkServer:
    """The server of this run of the tests."""
    global _server
    if _server is None:
        _server = ForkServer(os.environ.get(_RUN) or uuid.uuid4().hex)
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
