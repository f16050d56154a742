"""A command of a flow: its output line by line, its progress bars as numbers, and a clean end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flows.runtime.errors import FlowError
from flows.runtime.guard import marked, signal_all, wait_for_all
from flows.runtime.told_to_end import hears_of_it

GRACE_VARIABLE = "ZEROVL_GRACE_SECONDS"
GRACE_SECONDS = 60.0  # for a step of a large batch and its checkpoint
_NOTHING_SECONDS = 10.0  # for a command that has nothing to save
_ALONE_SECONDS = 5.0  # for DVC to end; it reads a file of many gigabytes to its end first
_LAST_SIGNAL = 64  # higher statuses are a program's own, as DVC's 255
_LAST_LINES = 15  # of the output, in the message of a failure
_GUARD = Path(__file__).with_name("guard.py")
# tqdm's own format: "train:  43%|####3     | 64/149 [00:20<00:30,  2.1step/s, loss=3.1]"
_BAR = re.compile(r"^(?:(?P<title>[^|]*?):)?\s*(?P<percent>\d+)%\|.*\|\s*(?P<count>.*?)\s*\[(?P<rest>[^\]]*)\]")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class CommandError(FlowError):
    """A command ended with a status other than 0; the text has its last lines."""


@dataclass(frozen=True)
class Patience:
    """How long a command has to end after SIGINT, in seconds; then its processes get SIGKILL."""

    whole: float  # all of it
    alone: float  # the command itself, once all that it started is gone

    @classmethod
    def of_a_command(cls) -> Patience:
        """Return that of a command that may save something itself: `ZEROVL_GRACE_SECONDS` (60)."""
        whole = float(os.environ.get(GRACE_VARIABLE) or GRACE_SECONDS)
        return cls(whole, whole)

    @classmethod
    def of_training(cls) -> Patience:
        """Return that of a DVC whose stage saves a checkpoint, and which saves nothing itself."""
        whole = cls.of_a_command().whole
        return cls(whole, min(whole, _ALONE_SECONDS))

    @classmethod
    def of_other_stages(cls) -> Patience:
        """Return that of a DVC whose stage begins again next time, whatever it had."""
        whole = min(cls.of_a_command().whole, _NOTHING_SECONDS)
        return cls(whole, min(whole, _ALONE_SECONDS))


@dataclass(frozen=True)
class Bar:
    """One state of a tqdm bar."""

    title: str
    percent: float
    text: str  # "64/149, 00:20<00:30, 2.1step/s, loss=3.1"


class Listener(Protocol):
    """Hears the output of a command while it runs."""

    def line(self, text: str) -> None:
        """Hear a line without its end."""

    def bar(self, bar: Bar) -> None:
        """Hear a new state of a progress bar."""


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    listener: Listener,
    keep: Sequence[int] = (),
    patience: Patience | None = None,
) -> str:
    """Run a command in `folder` to its end and return its whole output, bars aside.

    Args:
        environment: laid over this process's own.
        keep: file descriptors that stay open as long as any process of the command is there.
        patience: with a command that is to end; that of a command unless given.

    Raises:
        CommandError: its status is not 0.
        BaseException: what was raised in this process meanwhile (Ctrl-C, a cancellation), after the
            command's processes have ended: SIGINT first, SIGKILL where patience ends.
    """
    mark, patience = uuid.uuid4().hex, patience or Patience.of_a_command()
    # -P: the folder of guard.py holds modules with common names, which must not be found first.
    guard = subprocess.Popen(
        [sys.executable, "-P", str(_GUARD), str(patience.whole), str(patience.alone), mark, *command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=tuple(keep),
        start_new_session=True,
    )
    assert guard.stdout is not None
    lines, output = list[str](), _Output(guard.stdout.fileno())
    try:
        with hears_of_it():
            _listen(output, listener, lines)
            status = guard.wait()
    except BaseException:
        assert guard.stdin is not None
        guard.stdin.close()
        _hear_out(guard, output, listener, lines)
        raise
    finally:
        _end_without_guard(mark, patience.whole)
    if status:
        last = "\n".join(deque(lines, _LAST_LINES))
        number = -status if status < 0 else status - 128
        how = f"signal {number}" if 0 < number <= _LAST_SIGNAL else f"status {status}"
        raise CommandError(f"`{' '.join(command)}` ended with {how}:\n{last}")
    return "\n".join(lines)


def _end_without_guard(mark: str, grace: float) -> None:
    """End what is left of a command where its guard was killed itself."""
    if left := marked(mark):
        signal_all(left, signal.SIGINT)
        wait_for_all(mark, grace)


def _hear_out(guard: subprocess.Popen[bytes], output: _Output, listener: Listener, lines: list[str]) -> None:
    """Hear what a command says while it ends, as the checkpoint that it saved, and wait for it.

    Who is told to end once more, or whose log cannot be written, waits all the same; Ctrl-C alone does not.
    """
    while True:
        try:
            _listen(output, listener, lines)
            guard.wait()
            return
        except KeyboardInterrupt:
            raise
        except BaseException:
            continue


def _listen(output: _Output, listener: Listener, lines: list[str]) -> None:
    for piece in output:
        text = _ESCAPES.sub("", piece).rstrip()
        if match := _BAR.match(text):
            listener.bar(bar_of(match))
            text = text[match.end() :].strip()  # of whoever wrote next, where the bar's process was killed
        if text:
            lines.append(text)
            listener.line(text)


def bar_of(match: re.Match[str]) -> Bar:
    """Return the state that a line of tqdm shows."""
    parts = [part for part in (match["count"], *re.split(r",\s*", match["rest"])) if part]
    return Bar((match["title"] or "").strip(), float(match["percent"]), ", ".join(parts))


class _Output:
    """The text between line ends of a pipe, a bar's carriage returns included; who stops in between goes on there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._whole = deque[bytes]()
        self._rest = b""

    def __iter__(self) -> Iterator[str]:
        while True:
            while self._whole:
                yield self._whole.popleft().decode(errors="replace")
            if not (block := os.read(self._descriptor, 1 << 16)):
                break
            *whole, self._rest = re.split(rb"[\r\n]", self._rest + block)
            self._whole.extend(whole)
        rest, self._rest = self._rest, b""
        yield rest.decode(errors="replace")
