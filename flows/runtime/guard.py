"""A process between a flow and a command: whatever happens to the flow, the command's processes end.

    python guard.py GRACE ALONE MARK COMMAND...

The flow holds the other end of the guard's standard input. When that closes, because the flow asks for
it or because it is gone, the command's whole session gets SIGINT (training saves a checkpoint), and
what is left after GRACE seconds gets SIGKILL; the command itself, once all that it started is gone, after
ALONE; torch's `torch_shm_manager`, which removes what the others leave in shared memory, five seconds after them. The
command's output passes through the guard, so that it can still be written to when the flow no longer reads it.

Processes are known by `ZEROVL_CHILD=MARK` in their environment, which every descendant inherits, also
ranks and loader workers that have sessions of their own. Exits with the command's status, 128 + N for
signal N.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil

MARK_VARIABLE = "ZEROVL_CHILD"
_POLL = 0.2  # seconds between looks at who is left
_REMOVER = "torch_shm_manag"  # torch_shm_manager: of a longer name the kernel keeps 15 characters
_REMOVER_SECONDS = 5.0  # it ends 2 s after the last of those that shared tensors


def marked(mark: str) -> list[psutil.Process]:
    """Return all processes of this user that carry the mark, but not this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            alive = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(MARK_VARIABLE) == mark:
                found.append(process)
    return found


def main(arguments: list[str]) -> int:
    """Run the command to its end or until the flow is gone; returns the status to exit with."""
    grace, alone, mark, command = float(arguments[0]), float(arguments[1]), arguments[2], arguments[3:]
    asked = threading.Event()
    # Ctrl-C is for the flow, which then closes our input. A handler, as the command would inherit SIG_IGN and never end
    # by the SIGINT that it gets here; so it ends too where a worker in the background of a script ignores SIGINT.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, MARK_VARIABLE: mark},
        start_new_session=True,
    )
    assert child.stdout is not None
    output = threading.Thread(target=_forward, args=(child.stdout.fileno(),), daemon=True)
    output.start()
    threading.Thread(target=_wait_for_end_of_input, args=(asked,), daemon=True).start()
    while child.poll() is None and not asked.wait(_POLL):
        pass
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    else:
        signal_all(marked(mark), signal.SIGINT)  # what outlives a killed `dvc`
    wait_for_all(mark, grace, child.pid, alone)
    status = child.wait()
    output.join(timeout=5.0)
    return status if status >= 0 else 128 - status


def wait_for_all(mark: str, grace: float, command: int = 0, alone: float = 0.0) -> None:
    """Wait until no process carries the mark; what is there after `grace` seconds gets SIGKILL, removers last.

    Args:
        command: a process that has `alone` seconds at most once it is the only one: all that had something to save
            is gone. 0: there is none.
        alone: seconds.
    """
    deadline = time.monotonic() + grace
    while left := marked(mark):
        if [each.pid for each in left] == [command]:
            deadline = min(deadline, time.monotonic() + alone)
        late = time.monotonic() - deadline
        if late >= 0:
            signal_all([each for each in left if late >= _REMOVER_SECONDS or not _is_remover(each)], signal.SIGKILL)
        time.sleep(_POLL)


def signal_all(processes: list[psutil.Process], number: int) -> None:
    """Send a signal to those of the processes that are still there."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def _is_remover(process: psutil.Process) -> bool:
    """Whether a process removes what others leave in shared memory: killed with them, it would leave it there."""
    with suppress(psutil.Error):
        return bool(process.name().startswith(_REMOVER))
    return False


def _wait_for_end_of_input(asked: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    asked.set()


def _forward(source: int) -> None:
    gone = False
    while block := os.read(source, 1 << 16):
        while block and not gone:
            try:
                block = block[os.write(1, block) :]
            except OSError:
                gone = True  # the flow is; the command must not die of it while it saves


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
