"""One rank of a training run: `torchrun ... -m zerovl.training.worker [params.yaml]`, or in-process for one rank."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from pathlib import Path

from zerovl import params as parameters
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.training import exits
from zerovl.training.loop import StopRequest
from zerovl.training.ranks import die_with_parent, join
from zerovl.training.run import train
from zerovl.workspace import Workspace

PID_FOLDER = "ZEROVL_PID_FOLDER"  # set by `zerovl train`: where its ranks leave their process ids


def run(params: Params, workspace: Workspace) -> int:
    """Train to the end, or to a signal; returns the exit status."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers are forked after it was used
    stop = StopRequest()
    with join(params.train.watchdog_minutes) as ranks:
        stop.install()  # before, there is nothing to save: signals end this process, and so the gang
        return train(params, workspace, ranks, stop)


def main() -> int:
    """Entry of every rank under torchrun; `kill -USR2` shows its Python stacks."""
    die_with_parent()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # `zerovl train` hands it on as soon as it knows this process
    rank = os.environ.get("RANK", "0")
    if folder := os.environ.get(PID_FOLDER):
        Path(folder, f"rank-{rank}").write_text(str(os.getpid()), encoding="utf-8")
    _say_restart(rank)
    try:
        status = run(parameters.load(sys.argv[1] if len(sys.argv) > 1 else "params.yaml"), Workspace())
    except SystemExit:
        status = exits.FAILED  # another rank says why
    except ZeroVLError as error:
        exits.leave_word(str(error))
        exits.say(f"zerovl train: {error}")
        status = exits.FAILED
    except Exception as error:
        status = _crashed(rank, error)
    if status:
        exits.leave(status)  # at once: threads of a broken group may never end
    return status


def _crashed(rank: str, error: Exception) -> int:
    if exits.peer_is_gone(error):
        text = f"rank {rank} lost another rank: {exits.gist(error)}"
        exits.say(text)  # a detail; the message of the run is what the lost rank or the launcher says
        exits.leave_word(text, consequence=True)
        return exits.LOST_PEER
    exits.say("".join(traceback.format_exception(error)).rstrip())
    exits.leave_word(f"rank {rank}: {type(error).__name__}: {error}")
    return exits.CRASHED


def _say_restart(rank: str) -> None:
    """Under `torchrun --max-restarts`, which starts ranks again without a word."""
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if attempt and rank == "0":
        allowed = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "?")
        exits.say(f"zerovl train: starts again from the last checkpoint (restart {attempt} of {allowed} on this node)")


if __name__ == "__main__":
    sys.exit(main())
