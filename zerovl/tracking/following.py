"""Start the senders of a run, and tell them how it ended; see `zerovl.tracking.sender`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.params import Params
from zerovl.tracking.base import State
from zerovl.tracking.facts import Facts, change_facts, read_facts, write_facts
from zerovl.tracking.trackers import asked_for

_PATIENCE_SECONDS = 25.0  # for senders that should have ended by themselves
_INTERRUPTED_SECONDS = 5.0  # the same where somebody waits for the end of a training


class Senders:
    """The processes that tell trackers of a run; with none of them nothing is done."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self._folder = folder
        self._children = {name: _start(name, folder) for name in names}
        self.state: State = "failed"

    def ended(self, state: State) -> None:
        """Note how the run ended, for `close`."""
        self.state = state

    def close(self, seconds: float) -> bool:
        """Say how the run ended, and wait for the senders, all of them together so long; whether each told everything.

        What goes wrong is a warning: a training that failed says by itself why, and one that finished is done.
        """
        try:
            change_facts(self._folder, state=self.state)
        except (OSError, ZeroVLError) as error:
            logger().warning(f"trackers do not hear how the run ended: {error}; then `zerovl track` tells")
        for child in self._children.values():
            assert child.stdin is not None
            with suppress(OSError):  # it has crashed
                child.stdin.write(self.state.encode())
                child.stdin.close()
        deadline = time.monotonic() + seconds
        ended = [_end(name, child, deadline, seconds) for name, child in self._children.items()]
        return all(ended)


@contextmanager
def tracked(params: Params, folder: Path, steps: int, notes: Mapping[str, str]) -> Iterator[Senders]:
    """Tell the trackers of `params` of the run in `folder` while the block trains it; on one rank alone."""
    names = asked_for(params)
    if names:
        write_facts(folder, _as_known(Facts.of(params, steps, notes), read_facts(folder)))
    senders = Senders(names, folder)
    seconds = _PATIENCE_SECONDS
    try:
        yield senders
    except KeyboardInterrupt:  # somebody waits, and has asked twice
        seconds = _INTERRUPTED_SECONDS
        if senders.state == "failed":  # which nobody has said
            senders.ended("interrupted")
        raise
    finally:
        senders.close(_INTERRUPTED_SECONDS if senders.state == "interrupted" else seconds)


def bring_up_to_date(names: Sequence[str], folder: Path, facts: Facts, seconds: float = _PATIENCE_SECONDS) -> bool:
    """Tell trackers what they do not know of a run that is not running; whether they know everything now.

    Those that take longer than so many seconds are ended.
    """
    write_facts(folder, facts)
    senders = Senders(names, folder)
    senders.ended("failed" if facts.state == "running" else facts.state)  # a training that was killed said nothing
    return senders.close(seconds)


def _as_known(new: Facts, before: Facts | None) -> Facts:
    """A run that goes on: what is known of its model is kept until it is evaluated again."""
    if before is None:
        return new
    return Facts(new.project, new.parameters, new.state, new.steps, before.scores, {**before.notes, **new.notes})


def _start(name: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "zerovl.tracking.sender", str(folder), name]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, start_new_session=True
    )


def _end(name: str, child: subprocess.Popen[bytes], deadline: float, seconds: float) -> bool:
    """Wait until `deadline`, on the monotonic clock, which lies at the end of so many seconds; then end it."""
    try:
        return child.wait(max(deadline - time.monotonic(), 0.0)) == 0
    except subprocess.TimeoutExpired:  # its library hangs
        child.kill()
        child.wait()
        logger().warning(f"{name}: did not end within {seconds:g} s; `zerovl track` tells what it may have missed")
        return False
