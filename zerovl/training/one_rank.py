"""One rank of a training run: in a process of its own under torchrun (worker.py), or in that of `zerovl train`."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import traceback
from functools import partial
from pathlib import Path

from zerovl import log, params_file
from zerovl.distributed import exits
from zerovl.distributed.join import join
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.processes import die_with_parent
from zerovl.training.checkpoint_copy import ANSWERS
from zerovl.training.run import train
from zerovl.workspace import Workspace

LAUNCHER = "ZEROVL_LAUNCHER_PID"  # set by `zerovl train` for its ranks
PID_FOLDER = "ZEROVL_PID_FOLDER"  # set by `zerovl train`: where its ranks leave process ids and steps


def train_rank(params: Params, workspace: Workspace) -> int:
    """Train to the end, or to a signal; returns the exit status."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers are forked after it was used
    stop = StopRequest()
    with join(params.machine.watchdog_minutes) as ranks:
        if folder := os.environ.get(PID_FOLDER):
            ranks.activity.keep_step_in(step_file(folder, ranks.rank))
        # Before, there is nothing to save: signals end this process, and so the group.
        stop.install(partial(_answer, ranks))
        try:
            return train(params, workspace, ranks, stop)
        except Exception as error:
            error.add_note(f"step {ranks.activity.step}, {ranks.activity.phase}")
            raise


def step_file(folder: str, rank: int) -> Path:
    """Return where a rank of `zerovl train` leaves the number of the step that it is in."""
    return Path(folder, f"rank-{rank}.step")


def _answer(ranks: Ranks, name: str) -> None:
    """Say what a signal started. `zerovl train` of several ranks has its own answer to a second Ctrl-C: it waits."""
    if ranks.is_first:
        again = "; press Ctrl-C again to leave without" if ranks.world_size == 1 else ""
        answer = ANSWERS.get(ranks.activity.phase, "finishes the step and saves")
        exits.say_in_handler(f"zerovl train: {name}: {answer}{again}")


def main() -> int:
    """Be a rank under torchrun; returns the exit status. `kill -USR2` shows its Python stacks."""
    die_with_parent(parent=int(os.environ.get(LAUNCHER, os.getppid())))
    log.setup()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # `zerovl train` hands it on as soon as it knows this process
    rank = os.environ.get("RANK", "0")
    if folder := os.environ.get(PID_FOLDER):
        Path(folder, f"rank-{rank}").write_text(str(os.getpid()), encoding="utf-8")
    _say_restart(rank)
    try:
        status = train_rank(_params(), Workspace())
    except SystemExit:
        status = exits.FAILED  # another rank says why
    except ZeroVLError as error:
        exits.write_error_file(str(error))
        exits.say(f"zerovl train: {error}")
        status = exits.FAILED
    except Exception as error:
        status = _crashed(rank, error)
    if status:
        exits.leave(status)  # at once: threads of a broken group may never end
    return status


def _params() -> Params:
    parser = argparse.ArgumentParser(prog="python -m zerovl.training.worker", description=__doc__)
    parser.add_argument("params", nargs="?", default="params.yaml", metavar="FILE", help="default: params.yaml")
    parser.add_argument("--from", dest="continue_from", metavar="RUN@STEP", help="in place of train.continue_from")
    arguments = parser.parse_args()
    params = params_file.load(arguments.params)
    return params_file.continued(params, arguments.continue_from) if arguments.continue_from else params


def _crashed(rank: str, error: Exception) -> int:
    if exits.peer_is_gone(error):
        text = f"rank {rank} lost another rank: {exits.summary_line(error)}"
        exits.say(text)  # a detail; the message of the run is what the lost rank or the launcher says
        exits.write_error_file(text, consequence=True)
        return exits.LOST_PEER
    exits.say("".join(traceback.format_exception(error)).rstrip())
    place = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    exits.write_error_file(f"rank {rank}: {type(error).__name__}: {error}{place}")
    return exits.CRASHED


def _say_restart(rank: str) -> None:
    """Under `torchrun --max-restarts`, which starts ranks again without a word."""
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if attempt and rank == "0":
        allowed = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "?")
        exits.say(f"zerovl train: starts again from the last checkpoint (restart {attempt} of {allowed} on this node)")
