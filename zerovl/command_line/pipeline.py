"""The stages of `dvc.yaml`, and what each runs."""

from __future__ import annotations

import argparse
import faulthandler
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.command_line.parts import Subparsers, command, load, need, with_params
from zerovl.workspace import Workspace

if TYPE_CHECKING:
    from zerovl.params import Params

_TRAIN_EXAMPLES = """\
examples:
  zerovl train                                   as params.yaml says; resumes by itself if a run with the same
                                                 parameters, data and code was interrupted
  zerovl train --from 3f2a90c1@1200              go on from a checkpoint of another run with what params.yaml says now:
                                                 another lr, clip_norm or precision, more epochs, newer code
  zerovl recipe recipes/small-real.yaml train.batch_size=512 && dvc repro
                                                 another recipe with one value changed, through all stages
  torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29400 --max-restarts 3 \\
      -m zerovl.training.worker params.yaml      two nodes of 8 GPUs; run it on both

While it runs: Ctrl-C or SIGTERM saves a checkpoint of the current step and exits with 3; run it again to go on.
SIGUSR1 saves one and goes on.
A rank that dies, or is stuck for machine.watchdog_minutes, is named, and all start again from the last checkpoint.
"""


def add_to(commands: Subparsers) -> None:
    """Add these commands, in the order in which `zerovl --help` shows them."""
    _demo_data(commands)
    _prepare(commands)
    _validate(commands)
    _train(commands)
    _evaluate(commands)
    _register(commands)
    _track(commands)
    _code(commands)


def _demo_data(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = load(arguments)
        from zerovl.data.demo import draw

        draw.draw(params.demo, Path("data/demo/raw"))

    with_params(commands, "demo-data", "draw the demo's three sources of captioned scenes", run)


def _prepare(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = load(arguments)
        from zerovl.stages import prepare

        prepare.run(params)

    with_params(commands, "prepare", "pack raw sources into shards and a manifest", run)


def _validate(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = load(arguments)
        need(Workspace().manifest_file)
        from zerovl.stages import validate

        validate.run(params)

    with_params(commands, "validate", "check the manifest against the rules of params.yaml", run)


def _refuse_foreign(folder: Path, named: str) -> None:
    from zerovl import foreign_folders  # and logging, which a misspelt key does without

    foreign_folders.refuse(folder, named)


def _train(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> int:
        faulthandler.register(signal.SIGUSR2)  # shows the Python stacks
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # "save now" has nothing to save before training begins
        params = load(arguments)
        if arguments.continue_from:
            from zerovl import params_file

            params = params_file.continued(params, arguments.continue_from)
        if start := params.train.init_from:
            _refuse_foreign(Path(start), f"train.init_from: {start}")
        need(Workspace().manifest_file)
        from zerovl.stages import train

        return train.run(params, arguments.params)

    train = with_params(commands, "train", "train the model, or go on with an interrupted run", run, _TRAIN_EXAMPLES)
    train.add_argument(
        "--from", dest="continue_from", metavar="RUN@STEP", help="go on from a checkpoint in runs/ with other settings"
    )


def _evaluate(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = load(arguments)
        _refuse_foreign(Workspace().model, str(Workspace().model))
        need(Workspace().manifest_file, Workspace().model / "config.json")
        from zerovl import own_gpus
        from zerovl.stages import evaluation_helpers, train

        train.set_threads(params)
        own_gpus.take(own_gpus.count_up_to(params.machine.ranks), "evaluate", params.machine.gpu_wait_minutes)
        with evaluation_helpers.started_first(params) as helpers:
            from zerovl.stages import evaluate  # torch: after the number of threads is set

            evaluate.run(params, early=helpers)
        _tell_trackers(params)

    with_params(commands, "evaluate", "score the model on the validation splits and write the report", run)


def _register(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = load(arguments)
        _refuse_foreign(Workspace().model, str(Workspace().model))
        need(Workspace().manifest_file, Workspace().model / "config.json")
        from zerovl.stages import train

        train.set_threads(params)
        from zerovl.stages import register  # torch, where a holder is scored again

        register.run(params)
        _tell_trackers(params)

    with_params(commands, "register", "publish the model, pass it through the gate, move the alias", run)


def _track(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> int:
        params = load(arguments)
        from zerovl.commands import track

        return track.track(params, Workspace())

    text = "tell MLflow, TensorBoard or W&B what they do not know yet of the run whose model is here"
    with_params(commands, "track", text, run)


def _tell_trackers(params: Params) -> None:
    """Of what a stage has found; here, since no stage's outputs depend on it."""
    from zerovl.commands import track

    track.tell(params, Workspace())


def _code(commands: Subparsers) -> None:
    def run(_arguments: argparse.Namespace) -> None:
        from zerovl.commands import code

        code.write(Workspace())

    command(commands, "code", "write what each stage runs to reports/code/, for DVC to compare", run)
