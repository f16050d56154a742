"""`zerovl COMMAND`: arguments here, work in the packages; heavy imports happen inside commands."""

from __future__ import annotations

import argparse
import faulthandler
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from zerovl.errors import ZeroVLError

Command = Callable[[argparse.Namespace], int | None]

_TRAIN_HELP = """\
examples:
  zerovl train                                   as params.yaml says; resumes by itself if a run with the same
                                                 parameters, data and code was interrupted
  zerovl recipe recipes/small-real.yaml train.batch_size=512 && dvc repro
                                                 another recipe with one value changed, through all stages
  torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29400 --max-restarts 3 \\
      -m zerovl.training.worker params.yaml      two nodes of 8 GPUs; run it on both

While it runs: Ctrl-C or SIGTERM saves a checkpoint of the current step and exits with 3; run it again to go on.
SIGUSR1 saves one and goes on.
A rank that dies, or is stuck for train.watchdog_minutes, is named, and all start again from the last checkpoint.
"""

_PLAN_HELP = """\
examples:
  zerovl plan                                    for this machine
  zerovl plan --measure                          the same, with speed and memory from a few real steps
  zerovl plan --gpus 8 --gpu-memory 16GiB        for GPUs that are not here: what fits, and with which settings
  zerovl plan --gpus 8 --gpu H100 --pairs 14200000
                                                 before there is any data: hours at an assumed speed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.run(parsed) or 0
    except ZeroVLError as error:
        print(f"zerovl {parsed.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zerovl", description="Train, version and release image-text models by the ZeroVL recipe."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, run: Command, epilog: str | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(run=run)
        return command

    def add_stage(name: str, text: str, run: Command, epilog: str | None = None) -> argparse.ArgumentParser:
        stage = add(name, text, run, epilog)
        stage.add_argument("--params", default="params.yaml", metavar="FILE", help="default: params.yaml")
        return stage

    add_stage("demo-data", "draw the demo's three sources of captioned scenes", _demo_data)
    add_stage("prepare", "pack raw sources into shards and a manifest", _prepare)
    add_stage("validate", "check the manifest against the rules of params.yaml", _validate)
    add_stage("train", "train the model, or go on with an interrupted run", _train, _TRAIN_HELP)
    _add_plan(add_stage("plan", "say what training will take: memory, steps, bytes, speed, hours", _plan, _PLAN_HELP))
    add_stage("evaluate", "score the model on the validation splits and write the report", _evaluate)
    add_stage("register", "publish the model, pass it through the gate, move the alias", _register)
    add_stage("fetch-weights", "download the pretrained towers that params.yaml names, once", _fetch_weights)
    add_stage("doctor", "check this machine: Python, torch, GPUs, disk, store, Prefect", _doctor)

    recipe = add(
        "recipe",
        "write params.yaml from a recipe",
        _recipe,
        "example: zerovl recipe recipes/small-real.yaml train.seed=1",
    )
    recipe.add_argument("recipe", metavar="FILE", help="a recipe, or 'demo' for the defaults")
    recipe.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the recipe, as in train.lr=1e-3")
    recipe.add_argument("--out", default="params.yaml", metavar="FILE", help="default: params.yaml")

    add("summary", "what the last run of the pipeline came to", _summary)

    embed = add("embed", "embed the pairs of a CSV into an .npz file", _embed)
    embed.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    embed.add_argument("--pairs", required=True, metavar="CSV", help="columns image, image_id, caption, caption_id")
    embed.add_argument("--images", required=True, metavar="DIR")
    embed.add_argument("--out", required=True, metavar="FILE.npz")

    score = add("score", "print the retrieval metrics of embeddings as JSON", _score)
    score.add_argument("file", metavar="FILE.npz")

    search = add("search", "rank the pictures of a folder by a query", _search)
    search.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    search.add_argument("query")
    search.add_argument("--images", required=True, metavar="DIR")
    search.add_argument("--top", type=int, default=10, metavar="K", help="default: 10")
    search.add_argument("--out", metavar="FILE.png", help="also draw what was found")

    original = add(
        "import-checkpoint", "turn a checkpoint of the original ZeroVL code into a bundle", _import_checkpoint
    )
    original.add_argument("file", metavar="FILE.pth")
    original.add_argument("--image-tower", required=True, metavar="NAME", help="timm model name")
    original.add_argument("--text-tower", required=True, metavar="DIR|NAME", help="Hugging Face folder or name")
    original.add_argument("--out", required=True, metavar="MODEL")

    _add_registry(add)
    return parser


def _add_plan(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("--gpus", type=int, metavar="N", help="ranks, one a GPU; default: train.ranks, or this machine")
    plan.add_argument("--gpu", metavar="NAME", help="which one, as H100: gives its memory and an assumed speed")
    plan.add_argument("--gpu-memory", metavar="SIZE", help="of one GPU, as 16GiB")
    plan.add_argument("--pairs", type=int, metavar="N", help="training pairs; default: what the manifest has")
    plan.add_argument("--measure", action="store_true", help="calibrate with a few real steps on this machine")
    plan.add_argument("--json", type=Path, metavar="FILE", help="also write the plan there")


def _add_registry(add: Callable[[str, str, Command], argparse.ArgumentParser]) -> None:
    registry = add("registry", "look at releases, fetch them, move aliases", _registry)
    registry.add_argument(
        "--store", metavar="FOLDER|s3://...", help="default: ZEROVL_STORE, else register.store of params.yaml"
    )
    actions = registry.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str, reference: str | None) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=text, description=text)
        if reference:
            parser.add_argument("reference", metavar=reference)
        return parser

    action("list", "all models, their versions and aliases", None)
    action("show", "one version: files, metrics, provenance, verdict", "NAME@ALIAS|NAME@VERSION")
    pull = action("pull", "fetch a version, every digest checked", "NAME@ALIAS|NAME@VERSION")
    pull.add_argument("--out", metavar="DIR", help="default: the cache")
    action("verify", "read every byte of a version in the store and compare digests", "NAME@ALIAS|NAME@VERSION")
    promote = action("promote", "move an alias to a version", "NAME@VERSION")
    promote.add_argument("alias")
    promote.add_argument("--why", default="", help="kept in the history")
    rollback = action("rollback", "move an alias back to the version before", "NAME@ALIAS")
    rollback.add_argument("--why", default="", help="kept in the history")
    action("history", "every move of an alias", "NAME@ALIAS")


def _demo_data(arguments: argparse.Namespace) -> None:
    from zerovl import params
    from zerovl.data import demo

    settings = params.load(arguments.params)
    demo.draw(settings.demo, Path("data/demo/raw"))


def _prepare(arguments: argparse.Namespace) -> None:
    from zerovl import params
    from zerovl.data import prepare

    prepare.run(params.load(arguments.params))


def _validate(arguments: argparse.Namespace) -> None:
    from zerovl import params
    from zerovl.data import validation

    validation.run(params.load(arguments.params))


def _train(arguments: argparse.Namespace) -> int:
    faulthandler.register(signal.SIGUSR2)  # shows the Python stacks
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # "save now" has nothing to save before training begins
    from zerovl import params
    from zerovl.training import launch

    return launch.run(params.load(arguments.params), arguments.params)


def _plan(arguments: argparse.Namespace) -> None:
    from zerovl.training import plan_command
    from zerovl.workspace import Workspace

    options = plan_command.Options(
        arguments.gpus, arguments.gpu, arguments.gpu_memory, arguments.pairs, arguments.measure, arguments.json
    )
    plan_command.run(arguments.params, options, Workspace())


def _evaluate(arguments: argparse.Namespace) -> None:
    from zerovl import params
    from zerovl.evaluation import stage

    stage.run(params.load(arguments.params))


def _register(arguments: argparse.Namespace) -> None:
    from zerovl import params
    from zerovl.registry import stage
    from zerovl.workspace import Workspace

    settings, workspace = params.load(arguments.params), Workspace()
    from zerovl.evaluation.comparison import Holders  # torch: after the parameters, whose errors come at once

    stage.run(settings, workspace, Holders(settings.evaluate, workspace), _check_release)


def _fetch_weights(arguments: argparse.Namespace) -> None:
    from zerovl import params
    from zerovl.model import weights

    weights.fetch(params.load(arguments.params).model)


def _doctor(arguments: argparse.Namespace) -> int:
    from zerovl import doctor

    return doctor.run(Path(arguments.params))


def _recipe(arguments: argparse.Namespace) -> None:
    from zerovl import recipe

    recipe.apply(arguments.recipe, arguments.overrides, Path(arguments.out))


def _summary(_arguments: argparse.Namespace) -> None:
    from zerovl import summary
    from zerovl.workspace import Workspace

    summary.show(Workspace())


def _embed(arguments: argparse.Namespace) -> None:
    from zerovl.evaluation import commands

    commands.embed(arguments.model, Path(arguments.pairs), Path(arguments.images), Path(arguments.out))


def _score(arguments: argparse.Namespace) -> None:
    from zerovl.evaluation import commands

    commands.score(Path(arguments.file))


def _search(arguments: argparse.Namespace) -> None:
    from zerovl.evaluation import commands

    commands.search(
        arguments.model, arguments.query, Path(arguments.images), arguments.top, arguments.out and Path(arguments.out)
    )


def _import_checkpoint(arguments: argparse.Namespace) -> None:
    from zerovl.model import original

    original.import_checkpoint(Path(arguments.file), arguments.image_tower, arguments.text_tower, Path(arguments.out))


def _registry(arguments: argparse.Namespace) -> None:
    from zerovl.registry import commands

    commands.run(arguments, _check_release)


def _check_release(folder: Path) -> str:
    from zerovl.evaluation import sample

    return sample.check(folder)


if __name__ == "__main__":
    sys.exit(main())
