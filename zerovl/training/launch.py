"""`zerovl train`: one rank runs in this process, several are torchrun's.

On one node this module is torchrun: it runs torch's elastic agent in its own process, without restarts
of the agent's own, and starts it again as `machine.restarts` allows. So the decision lies where a rank's
exit status and last word are known: a rank that was killed or crashed is worth another attempt, a
`ZeroVLError`, or an exception or a signal that came twice in the same step, would end it the same way again,
and an interruption was asked for. A signal that takes one rank and leaves the launcher is the kernel's, for want
of memory or for a crash, or somebody's by hand; a node that is taken away takes the launcher too.
`torchrun --max-restarts` knows no such difference; on many nodes, where it is used, ranks end their agents
themselves (`exits.end_agent`). Each attempt has a rendezvous of its own.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from zerovl import own_gpus
from zerovl.device import rank_count
from zerovl.distributed import exits
from zerovl.engine.frozen_features import training_image_size
from zerovl.model.checks import check_towers
from zerovl.params import MachineParams, Params
from zerovl.tracking import trackers
from zerovl.training import one_rank
from zerovl.training.run import check_ranks
from zerovl.workspace import Workspace

SHUTDOWN_SECONDS = "1800"  # what a rank may need to end its step and save; torchrun's own 30 s would kill it


def launch(params: Params, path: str) -> int:
    """Train with the ranks of `machine.ranks`; returns the exit status.

    0 done, 1 a rank died and no restart is left, 2 failed with a message, 3 interrupted and saved.

    Args:
        path: the file of `params`, which several ranks read themselves; `train.continue_from` is handed to them.
    """
    gpus = own_gpus.count(params.machine.ranks)
    check_ranks(params, gpus or params.machine.ranks or 1)  # before the wait for GPUs
    check_towers(params.model, training_image_size(params))
    trackers.check(params)
    own_gpus.take(gpus, "train", params.machine.gpu_wait_minutes)
    ranks = rank_count(params.machine.ranks)
    check_ranks(params, ranks)
    if ranks == 1:
        return one_rank.train_rank(params, Workspace())
    arguments = [path, *(["--from", params.train.continue_from] if params.train.continue_from else [])]
    try:
        return _run_group(ranks, arguments, params.machine)
    except SignalException:
        _say("interrupted, see above; run it again to go on")
        return exits.INTERRUPTED


_EACH_TIME_ANOTHER = re.compile(r"\b0x[0-9a-f]+\b|\bpid \d+")


@dataclass(frozen=True)
class Cause:
    """The rank that ended the group, and how."""

    rank: int
    status: int  # negative: the signal
    text: str
    step: int | None = None  # that it was in; None before its first one

    def repeats(self, before: Cause | None) -> bool:
        """Whether the attempt before was ended by the same exception or signal in the same step, on whichever rank."""
        if before is None or self.status != before.status:
            return False
        if self.status < 0:
            return self.step == before.step
        return self.status == exits.CRASHED and self._what == before._what

    @property
    def where(self) -> str:
        """In which step, for people."""
        return "before the first step" if self.step is None else f"in step {self.step}"

    @property
    def _what(self) -> str:
        """Without the rank, and without addresses and ids of processes in a message, which are others each time."""
        return _EACH_TIME_ANOTHER.sub("...", self.text.removeprefix(f"rank {self.rank}: "))


def find_cause(failures: Iterable[tuple[int, ProcessFailure]]) -> Cause:
    """The first link in a chain of ranks that ended, by what their statuses mean.

    A message and a verdict of the watchdog come before signals, since the agent kills what does not end.
    Last come the consequences of another rank's end: NCCL aborts a rank that waits for a dead one, others
    notice by themselves, and the agent sends SIGTERM to the rest.
    """
    first = [exits.FAILED, exits.INTERRUPTED, exits.STUCK]
    last = [-signal.SIGABRT, exits.LOST_PEER, -signal.SIGTERM]

    def place(failure: ProcessFailure) -> int:
        if failure.exitcode in first:
            return first.index(failure.exitcode)
        if failure.exitcode in last:
            return len(first) + 2 + last.index(failure.exitcode)
        return len(first) + (1 if failure.exitcode > 0 else 0)

    words = [
        (place(failure), not exits.read_error_file(failure.error_file), rank, failure) for rank, failure in failures
    ]
    _, _, rank, failure = min(words, key=lambda entry: entry[:3])
    word = exits.read_error_file(failure.error_file)
    if failure.exitcode < 0:
        how = f"died by {failure.signal_name()}"
        if failure.exitcode == -signal.SIGKILL:
            how += " (if nobody sent it, the kernel did for want of memory)"
    else:
        how = f"ended with status {failure.exitcode}"
    return Cause(rank, failure.exitcode, word or f"rank {rank} (pid {failure.pid}) {how}")


def _run_group(ranks: int, arguments: list[str], machine: MachineParams) -> int:
    restarts = machine.restarts
    _catch_signals()
    _silence_torchrun()
    with tempfile.TemporaryDirectory(prefix="zerovl-") as folder:
        os.environ |= {one_rank.LAUNCHER: str(os.getpid()), one_rank.PID_FOLDER: folder}
        # What a rank gets unless it was set outside; torchrun's own default is 30 s.
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # C++ stacks of a lost connection hide the cause
        attempt = 1
        before: Cause | None = None
        while cause := _attempt(ranks, arguments, folder):
            if cause.status == exits.INTERRUPTED:
                _say("interrupted, see above; run it again to go on")
                return exits.INTERRUPTED
            if cause.status == exits.FAILED:
                _say(cause.text)
                return exits.FAILED
            if cause.repeats(before):
                _say(_told_of_repeat(cause))
                return exits.CRASHED
            if attempt > restarts:
                _say(f"{cause.text}; no restart is left (machine.restarts {restarts}), run it again to go on")
                return exits.CRASHED
            _say(f"{cause.text}; all ranks start again from the last checkpoint (restart {attempt} of {restarts})")
            attempt, before = attempt + 1, cause
        return 0


def _told_of_repeat(cause: Cause) -> str:
    if cause.status >= 0:
        return (
            f"{cause.text}; it came in the same step before the restart, so another would end there too: no further "
            "restart. Its traceback is above; remove its cause, then run it again to go on"
        )
    memory = (
        "`dmesg` says whether memory ran out: then lower machine.loader_workers or train.micro_batch. "
        if cause.status == -signal.SIGKILL
        else ""
    )
    return (
        f"{cause.text} {cause.where}, as before the restart, so another would end there too: no further restart. "
        f"{memory}Run it again to go on from the last checkpoint"
    )


def _attempt(ranks: int, arguments: list[str], folder: str) -> Cause | None:
    """Run all ranks until the last has ended; None where all of them finished."""
    for file in Path(folder).glob("rank-*"):  # of the attempt before
        file.unlink()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id="zerovl",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT",
        logs_specs=DefaultLogsSpecs(log_dir=folder),
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "zerovl.training.worker", *arguments)
    except ChildFailedError as error:
        cause = find_cause(error.failures.items())
        return replace(cause, step=_step_of(cause.rank, folder))
    return None


def _step_of(rank: int, folder: str) -> int | None:
    """Return the step that a rank was in when it ended; None where it had not come to one."""
    try:
        return int(one_rank.step_file(folder, rank).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _catch_signals() -> None:
    """Signals to the launcher are meant for the ranks; the agent hands SIGTERM and SIGINT on while it runs."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise SignalException("before or between attempts", signal.Signals(number))

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # by nohup
        signal.signal(signal.SIGHUP, hang_up)
    signal.signal(signal.SIGUSR1, _hand_on)


def _hand_on(number: int, _frame: FrameType | None) -> None:
    """Send a signal to rank 0, which tells the others; from all, they might hear of it in different steps."""
    with suppress(OSError, ValueError):  # it has not started, or is about to write its number
        os.kill(int(Path(os.environ[one_rank.PID_FOLDER], "rank-0").read_text(encoding="utf-8")), number)


def _silence_torchrun() -> None:
    """The ranks' own words are the message; `LOGLEVEL=WARNING` brings torchrun's back."""
    if "LOGLEVEL" not in os.environ:
        for name in list(logging.root.manager.loggerDict):  # each has a level of its own
            if name.startswith("torch.distributed.elastic."):
                logging.getLogger(name).setLevel(logging.CRITICAL)


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write("\n")  # a killed rank leaves its progress bar without an end
    exits.say(f"zerovl train: {text}")
