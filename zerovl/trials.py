"""The trials of a sweep as processes of DVC: as many at once as there are free GPUs for, until the time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zerovl import gpu_leases, gpu_names, own_gpus, s3
from zerovl.text_format import plural

_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Command:
    """What one trial runs."""

    name: str
    words: tuple[str, ...]  # for dvc
    said: str  # its settings, for people


class Running(Protocol):
    """A trial on its way."""

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""

    def interrupt(self) -> None:
        """Ask it to save and end."""

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""


Start = Callable[[Sequence[str], Path | None], Running]  # words for dvc, a file for its output -> the trial


@dataclass(frozen=True)
class DvcProcess:
    """A command of dvc in a session of its own, so that a signal goes once to all of its processes."""

    child: subprocess.Popen[bytes]

    @classmethod
    def start(cls, words: Sequence[str], output: Path | None) -> DvcProcess:
        """Run dvc; its output goes to the terminal, or to a file."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        command = [sys.executable, "-m", "dvc", *words]
        with ExitStack() as files:
            if output:
                output.parent.mkdir(parents=True, exist_ok=True)
            stream = files.enter_context(open(output, "ab")) if output else None
            environment = {**os.environ, **s3.checksum_variables(), "PATH": path}
            child = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
            return cls(child)

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self.child.poll()

    def interrupt(self) -> None:
        """Send Ctrl-C to all of its processes."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGINT)

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        return self.child.wait()


def side_by_side(ranks: int) -> int:
    """Return how many trials of `machine.ranks` fit on the GPUs that are free now; at least one, which waits."""
    there = gpu_names.visible()
    if not there.names:
        return 1
    return max(1, gpu_leases.look(there.names).free // own_gpus.count(ranks))


def run_all(commands: Sequence[Command], deadline: float, start: Start, jobs: int, logs: Path) -> None:
    """Run all trials, `jobs` at once, each leasing GPUs of its own.

    When the time is over, or at Ctrl-C, those that run are asked to save and end, and are waited for. SIGTERM and
    SIGHUP count as Ctrl-C, but for one that is ignored, as under nohup.

    Args:
        deadline: by `time.monotonic`; no trial begins after it.
        logs: a folder for the output of each, where there are several at once.
    """
    waiting, running = list(enumerate(commands, 1)), dict[Command, Running]()
    asked = False
    with _signals_that_end():
        try:
            while running or (waiting and time.monotonic() < deadline):
                while waiting and len(running) < jobs and time.monotonic() < deadline:
                    number, command = waiting.pop(0)
                    log = logs / f"{command.name}.log" if jobs > 1 else None
                    where = f" (output in {log})" if log else ""
                    print(f"trial {number} of {len(commands)}: {command.said}{where}", flush=True)
                    running[command] = start(command.words, log)
                if time.monotonic() >= deadline and not asked:
                    asked = True
                    _interrupt(running)
                if not _ended(running):
                    time.sleep(_POLL)
        except KeyboardInterrupt:
            left = len(waiting) + _unfinished(running)
            print(f"interrupted, {plural(left, 'trial')} not at an end; the same command goes on", flush=True)
            raise
    if waiting:
        print(f"the time is over, {plural(len(waiting), 'trial')} not begun; the same command goes on")


def _unfinished(running: dict[Command, Running]) -> int:
    """Ask trials to save and end, and wait for them; returns how many did not come to their end.

    A second Ctrl-C is for them too, as a training says: it leaves without saving. A third is for whoever waits.
    """
    try:
        _interrupt(running)
        return sum(trial.wait() != 0 for trial in running.values())
    except KeyboardInterrupt:
        _interrupt(running)
        return sum(trial.wait() != 0 for trial in running.values())


def _interrupt(running: dict[Command, Running]) -> None:
    for trial in running.values():
        trial.interrupt()


def _ended(running: dict[Command, Running]) -> bool:
    """Take out the trials that have ended; returns whether there were any."""
    ended = {command: status for command, trial in running.items() if (status := trial.poll()) is not None}
    for command, status in ended.items():
        del running[command]
        if status:
            print(f"trial {command.name} did not come to its end (status {status}); the same command tries it again")
    return bool(ended)


@contextmanager
def _signals_that_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, where they would end this process and leave trials running."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
