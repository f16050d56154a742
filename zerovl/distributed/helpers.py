"""A group of processes for one piece of work on this machine: the process that asks is rank 0 and starts the others.

What needs no checkpoints and no restarts is shared so: rank 0 goes on where it would alone, with the same code, and
keeps the result; a helper does its share and ends. A helper that dies breaks the collective in which the others wait,
and rank 0 says which one it was and how.

They talk by gloo, on the CPU, whatever each computes on: what travels is small, and gloo notices a dead process at
once, where NCCL waits.
"""

from __future__ import annotations

import faulthandler
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from zerovl import heap, log
from zerovl.device import own_device
from zerovl.distributed import exits
from zerovl.distributed.collectives import OneRank, ProcessGroup
from zerovl.distributed.helper_processes import Helpers, started
from zerovl.distributed.ranks import Ranks
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write
from zerovl.processes import die_with_parent

TIMEOUT = timedelta(hours=6)  # that one rank may be ahead of another
_START_SECONDS = 600.0  # to import torch on a busy machine
_END_SECONDS = 60.0  # that a helper's end may come later than the broken connection: it ends, if only slowly
_LAST_SECONDS = 60.0  # that a helper may take to end when all is done
_JOB = "job.json"


@contextmanager
def shared_work(count: int, module: str, job: str, early: Helpers | None = None) -> Iterator[Ranks]:
    """Start `count` - 1 helpers, each `python -m MODULE` with a `main` of `help_with`; this process is rank 0.

    Args:
        count: ranks; with 1 nothing is started.
        module: what helpers run.
        job: what `help_with` hands to their work. They make the same calls of collectives as the block.
        early: helpers that were started before; taken where they are as many, of the same module, else killed.

    Raises:
        ZeroVLError: a helper died, or ended with a message of its own, which is then this one's.
    """
    if early and (early.count, early.module) != (count, module):
        early.kill()
        early = None
    if count == 1:
        yield Ranks(0, 1, own_device(), OneRank())
        return
    with nullcontext(early) if early else started(count, module) as helpers:
        (helpers.folder / _JOB).write_text(job, encoding="utf-8")
        try:
            device = _take_device(0)
            _await_start(helpers.running, helpers.folder)
            with _group(helpers.folder, 0, count, device) as ranks:
                yield ranks
            for helper in helpers.running.values():
                with suppress(subprocess.TimeoutExpired):  # they have what they need, and end by themselves
                    helper.wait(_LAST_SECONDS)
        except Exception as error:
            if not exits.peer_is_gone(error):
                raise
            raise ZeroVLError(_what_ended(helpers.running, helpers.folder) or exits.summary_line(error)) from None


def help_with(work: Callable[[str, Ranks], object]) -> int:
    """Do one helper's share: `work` gets the job and this rank's place. The `main` of a module that helps."""
    folder, rank, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    die_with_parent(parent=int(sys.argv[4]))
    heap.keep_freed()
    log.setup()
    faulthandler.register(signal.SIGUSR2)  # shows the Python stacks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches rank 0, which ends its helpers
    try:
        device = _take_device(rank)
        _word(folder, rank, "ready").touch()  # nobody waits for this rank before
        with _group(folder, rank, count, device) as ranks:
            try:
                work((folder / _JOB).read_text(encoding="utf-8"), ranks)
            except ZeroVLError as error:
                _give_up(folder, rank, error)  # before the connection breaks, so that the reason is there by then
    except ZeroVLError as error:
        _give_up(folder, rank, error)
    except Exception as error:
        if exits.peer_is_gone(error):
            exits.leave(exits.LOST_PEER)  # rank 0 or another helper says why
        raise
    return 0


def _give_up(folder: Path, rank: int, error: ZeroVLError) -> None:
    with atomic_write(_word(folder, rank, "error"), "w") as file:
        file.write(str(error))
    exits.leave(exits.FAILED)


def _take_device(rank: int) -> torch.device:
    device = own_device(rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def _group(folder: Path, rank: int, count: int, device: torch.device) -> Iterator[Ranks]:
    meeting = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=TIMEOUT)
    try:
        yield Ranks(rank, count, device, ProcessGroup())
    finally:
        dist.destroy_process_group()


def _await_start(helpers: dict[int, subprocess.Popen[bytes]], folder: Path) -> None:
    """Wait until all have imported what they need: a rank that died before it joined breaks no connection."""
    deadline = time.monotonic() + _START_SECONDS
    while missing := [rank for rank in helpers if not _word(folder, rank, "ready").exists()]:
        if any(helpers[rank].poll() is not None for rank in missing) or time.monotonic() > deadline:
            ended = _what_ended(helpers, folder)
            raise ZeroVLError(ended or f"rank {missing[0]} did not start within {_START_SECONDS:g} s; run it again")
        time.sleep(0.05)


def _what_ended(helpers: dict[int, subprocess.Popen[bytes]], folder: Path) -> str:
    """Which helper ended the group: one with a message first, last those that only lost another one."""
    deadline = time.monotonic() + _END_SECONDS
    while not any(helper.poll() for helper in helpers.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)  # the first to be seen may be one that lost another
    ended = {rank: helper.returncode for rank, helper in helpers.items() if helper.poll()}
    for rank in ended:
        with suppress(OSError):
            return _word(folder, rank, "error").read_text(encoding="utf-8")
    for rank, status in sorted(ended.items(), key=lambda item: item[1] == exits.LOST_PEER):
        how = f"died by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}, see above"
        if status == -signal.SIGKILL:
            how += " (if nobody sent it, the kernel did for want of memory)"
        return (
            f"rank {rank} of {len(helpers) + 1} (pid {helpers[rank].pid}) {how}; nothing was written. Run it again, "
            "or with a smaller machine.ranks where memory is short"
        )
    return ""


def _word(folder: Path, rank: int, what: str) -> Path:
    return folder / f"rank-{rank}.{what}"
