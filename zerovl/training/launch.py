"""`zerovl train`: one rank runs in this process, several are torchrun's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import torch

from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.training import worker
from zerovl.training.ranks import die_with_parent
from zerovl.workspace import Workspace

SHUTDOWN_SECONDS = "1800"  # what a rank may need to end its step and save; torchrun's own 30 s would kill it


def run(params: Params, path: str) -> int:
    """Train with the ranks of `train.ranks`; returns the exit status (0 done, 3 interrupted and saved)."""
    ranks = params.train.ranks or max(1, torch.cuda.device_count())
    if torch.cuda.is_available() and ranks > torch.cuda.device_count():
        raise ZeroVLError(
            f"train.ranks is {ranks}, this machine has {torch.cuda.device_count()} GPUs; set it to 0 for one rank a GPU"
        )
    worker.check_ranks(params, ranks)
    if ranks == 1:
        return worker.run(params, Workspace())
    return _torchrun(ranks, path)


def _torchrun(ranks: int, path: str) -> int:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    # OMP_NUM_THREADS is set here only to silence torchrun's own default of 1; each rank sets its share.
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": SHUTDOWN_SECONDS,
        **os.environ,
    }
    child = subprocess.Popen(
        [*command, "-m", "zerovl.training.worker", path], env=environment, preexec_fn=_end_with_this_process
    )
    interrupted: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        interrupted.append(number)
        child.send_signal(signal.SIGTERM)  # torchrun hands it to the ranks, which save and leave

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGUSR1, lambda *_: ask_ranks_to_save(child.pid))
    status = child.wait()
    if status == 0:
        return 0
    if interrupted:
        print("zerovl train: interrupted, see above; run it again to go on", file=sys.stderr)
        return worker.INTERRUPTED
    return 1


def _end_with_this_process() -> None:
    """In the child, before torchrun starts: end with the launcher, and stay out of the terminal's Ctrl-C."""
    os.setpgrp()
    # Inherited by torchrun, which would end at this signal, and by the ranks, until they can handle it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    die_with_parent(signal.SIGTERM)


def ask_ranks_to_save(torchrun: int) -> None:
    """Hand SIGUSR1 to the ranks, torchrun's children: torchrun itself forwards only signals that end them."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # "pid (name) state parent ...", and the name may hold anything
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
        if parent == torchrun:
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGUSR1)
