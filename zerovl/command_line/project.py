"""Settings, plans, and what came of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from zerovl.command_line.parts import Subparsers, command, file_of_kind, file_to_write, load, with_params

_PLAN_EXAMPLES = """\
examples:
  zerovl plan                                    for this machine
  zerovl plan --measure                          the same, with speed and memory from a few real steps
  zerovl plan --gpus 2 --gpu-memory 16GiB        for GPUs that are not here: what fits, and with which settings
  zerovl plan --gpus 2 --gpu H100 --pairs 14200000
                                                 before there is any data: hours at an assumed speed
"""


_COMPARE_EXAMPLES = """\
examples:
  zerovl compare zerovl@production zerovl@7      two releases of the default store
  zerovl compare zerovl@production model         the model of this checkout against the one in production
  zerovl compare HEAD~1 HEAD higher-lr           what DVC has of two commits and an experiment
  zerovl compare runs/3f2a90c14be7d105 runs/8d01c2ab34ef5690
                                                 two runs: their parameters and curves
"""


_SWEEP_EXAMPLES = """\
examples:
  zerovl sweep train.lr=5e-4,1e-3,3e-3           three trials, as many at once as there are free GPUs
                                                 for, then their comparison
  zerovl sweep train.lr=5e-4,1e-3,3e-3 train.weight_decay=0.001,0.05 --trials 4 --hours 8
                                                 four of six combinations, within a night
The same command again goes on: finished trials are left out, an interrupted training resumes.
"""


def add_to(commands: Subparsers) -> None:
    """Add these commands, in the order in which `zerovl --help` shows them."""
    _plan(commands)
    _fetch_weights(commands)
    _doctor(commands)
    _recipe(commands)
    _summary(commands)
    _compare(commands)
    _sweep(commands)


def _plan(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = load(arguments)
        from zerovl.commands import plan
        from zerovl.planning.make import Options
        from zerovl.workspace import Workspace

        given = (arguments.gpus, arguments.gpu, arguments.gpu_memory, arguments.pairs, arguments.measure)
        json = Path(arguments.json) if arguments.json else None
        plan.run(params, arguments.params, Options(*given, json, arguments.nodes), Workspace())

    text = "say what training will take: memory, steps, bytes, speed, hours"
    plan = with_params(commands, "plan", text, run, _PLAN_EXAMPLES)
    plan.add_argument("--gpus", type=int, metavar="N", help="ranks, one a GPU; default: machine.ranks, or this machine")
    plan.add_argument("--nodes", type=int, metavar="N", help="that have these ranks, as many each; default: one")
    plan.add_argument("--gpu", metavar="NAME", help="which one, as H100: gives its memory and an assumed speed")
    plan.add_argument("--gpu-memory", metavar="SIZE", help="of one GPU, as 16GiB")
    plan.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="training pairs (train.epoch_of captions: captions); default: what the manifest has",
    )
    plan.add_argument("--measure", action="store_true", help="calibrate with a few real steps on this machine")
    plan.add_argument("--json", type=file_to_write, metavar="FILE", help="also write the plan there")


def _fetch_weights(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = load(arguments)
        from zerovl.commands import fetch_weights

        fetch_weights.fetch(params.model)

    with_params(commands, "fetch-weights", "download the pretrained towers that params.yaml names, once", run)


def _doctor(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from zerovl.commands import doctor

        return doctor.run(Path(arguments.params))

    with_params(commands, "doctor", "check this machine: Python, torch, GPUs, disk, store, Prefect", run)


def _recipe(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import recipe

        recipe.apply(arguments.recipe, arguments.overrides, Path(arguments.out))

    examples = "examples: zerovl recipe auto data.raw=data/raw; zerovl recipe recipes/small-real.yaml train.seed=1"
    recipe = command(commands, "recipe", "write params.yaml from a recipe", run, examples)
    what = "a recipe; 'demo' for the defaults; 'auto' for settings chosen for the data of data.raw, with reasons"
    recipe.add_argument("recipe", metavar="FILE", help=what)
    recipe.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the recipe, as in train.lr=1e-3")
    recipe.add_argument("--out", type=file_to_write, default="params.yaml", metavar="FILE", help="default: params.yaml")


def _summary(commands: Subparsers) -> None:
    def run(_arguments: argparse.Namespace) -> None:
        from zerovl.commands import summary
        from zerovl.workspace import Workspace

        summary.show(Workspace())

    command(commands, "summary", "what the last run of the pipeline came to", run)


def _compare(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import compare
        from zerovl.workspace import Workspace

        json = Path(arguments.json) if arguments.json else None
        compare.run(arguments.references, Path(arguments.out), json, Workspace())

    text = "scores, parameters, curves and queries of two or more models side by side"
    compare = command(commands, "compare", text, run, _COMPARE_EXAMPLES)
    compare.add_argument(
        "references",
        nargs="+",
        metavar="REFERENCE",
        help="NAME@ALIAS, NAME@VERSION, a folder of a model, checkout or run, a git revision, an experiment of DVC; "
        "the first is what the others are held against",
    )
    compare.add_argument(
        "--out",
        type=file_of_kind(".html", ".htm"),
        default="reports/comparison.html",
        metavar="FILE.html",
        help="default: reports/comparison.html",
    )
    compare.add_argument("--json", type=file_to_write, metavar="FILE", help="also write the numbers there")


def _sweep(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import sweep
        from zerovl.workspace import Workspace

        budget = sweep.Budget(arguments.trials, arguments.hours, arguments.seed)
        references = sweep.run(arguments.changes, budget, Workspace())
        if len(references) > 1:
            from zerovl.commands import compare  # torch: after the settings are known to be right

            compare.run(references, Path(arguments.out), None, Workspace())

    text = "try combinations of settings as experiments of DVC, then compare them"
    sweep = command(commands, "sweep", text, run, _SWEEP_EXAMPLES)
    sweep.add_argument(
        "changes", nargs="+", metavar="KEY=VALUE,VALUE", help="settings of params.yaml, all combinations"
    )
    sweep.add_argument("--trials", type=int, default=20, metavar="N", help="drawn from more combinations; default: 20")
    sweep.add_argument("--hours", type=float, default=24.0, help="then what runs saves and ends; default: 24")
    sweep.add_argument("--seed", type=int, default=0, help="of the draw; default: 0")
    sweep.add_argument(
        "--out",
        type=file_of_kind(".html", ".htm"),
        default="reports/comparison.html",
        metavar="FILE.html",
        help="the page of the comparison",
    )
