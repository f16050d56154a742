"""`zerovl COMMAND`: one function a command, its arguments and what it does side by side.

Parameters are read and checked before anything heavy is imported, so that a misspelt key is told in a second.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.errors import ZeroVLError
from zerovl.version import __version__

if TYPE_CHECKING:
    from zerovl.params import Params

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Run = Callable[[argparse.Namespace], int | None]

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
  zerovl sweep train.lr=5e-4,1e-3,3e-3           three trials, one after the other, then their comparison
  zerovl sweep train.lr=5e-4,1e-3,3e-3 train.weight_decay=0.001,0.05 --trials 4 --hours 8
                                                 four of six combinations, within a night
The same command again goes on: finished trials are left out, an interrupted training resumes.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 done, 2 an error with a message, 130 after Ctrl-C, 141 where whoever read the output has gone, as `head` does.
    """
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()  # here, not when Python ends: there a broken pipe cannot be caught
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        return 128 + signal.SIGPIPE


def _reader_is_gone() -> bool:
    """Whether stdout is the pipe that broke; others may belong to a store or a worker."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _main(arguments: Sequence[str] | None) -> int:
    from zerovl import log

    if arguments is None:  # a process of its own
        from zerovl import experiment_copy

        experiment_copy.enter(sys.argv[1:])
    parsed = _parser().parse_args(arguments)
    log.setup()
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
    parser.add_argument("--version", action="version", version=f"zerovl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        *(_demo_data, _prepare, _validate, _train, _plan, _evaluate, _register, _fetch_weights, _doctor, _recipe),
        *(_summary, _compare, _embed, _score, _classify, _import_checkpoint, _convert_weights, _export),
        *(_sweep, _index, _search, _serve, _import, _code, _registry),
    ):
        add(commands)
    return parser


def _command(commands: Subparsers, name: str, text: str, run: Run, examples: str = "") -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=text, description=text, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(run=run)
    return command


def _with_params(commands: Subparsers, name: str, text: str, run: Run, examples: str = "") -> argparse.ArgumentParser:
    command = _command(commands, name, text, run, examples)
    command.add_argument("--params", default="params.yaml", metavar="FILE", help="default: params.yaml")
    return command


def _load(arguments: argparse.Namespace) -> Params:
    from zerovl import params_file

    return params_file.load(arguments.params)


# -- stages, as in dvc.yaml


def _demo_data(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = _load(arguments)
        from zerovl.data.demo import draw

        draw.draw(params.demo, Path("data/demo/raw"))

    _with_params(commands, "demo-data", "draw the demo's three sources of captioned scenes", run)


def _prepare(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = _load(arguments)
        from zerovl.stages import prepare

        prepare.run(params)

    _with_params(commands, "prepare", "pack raw sources into shards and a manifest", run)


def _validate(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = _load(arguments)
        from zerovl.stages import validate

        validate.run(params)

    _with_params(commands, "validate", "check the manifest against the rules of params.yaml", run)


def _train(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> int:
        faulthandler.register(signal.SIGUSR2)  # shows the Python stacks
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # "save now" has nothing to save before training begins
        params = _load(arguments)
        if arguments.continue_from:
            from zerovl import params_file

            params = params_file.continued(params, arguments.continue_from)
        from zerovl.stages import train

        return train.run(params, arguments.params)

    train = _with_params(commands, "train", "train the model, or go on with an interrupted run", run, _TRAIN_EXAMPLES)
    train.add_argument(
        "--from", dest="continue_from", metavar="RUN@STEP", help="go on from a checkpoint in runs/ with other settings"
    )


def _evaluate(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = _load(arguments)
        from zerovl.stages import train

        train.set_threads(params)
        from zerovl.stages import evaluate  # torch: after the number of threads is set

        evaluate.run(params)

    _with_params(commands, "evaluate", "score the model on the validation splits and write the report", run)


def _register(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = _load(arguments)
        from zerovl.stages import train

        train.set_threads(params)
        from zerovl.stages import register  # torch, where a holder is scored again

        register.run(params)

    _with_params(commands, "register", "publish the model, pass it through the gate, move the alias", run)


def _code(commands: Subparsers) -> None:
    def run(_arguments: argparse.Namespace) -> None:
        from zerovl.commands import code
        from zerovl.workspace import Workspace

        code.write(Workspace())

    _command(commands, "code", "write what each stage runs to reports/code/, for DVC to compare", run)


# -- the other commands


def _plan(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = _load(arguments)
        from zerovl.commands import plan
        from zerovl.planning.make import Options
        from zerovl.workspace import Workspace

        given = (arguments.gpus, arguments.gpu, arguments.gpu_memory, arguments.pairs, arguments.measure)
        plan.run(params, arguments.params, Options(*given, arguments.json), Workspace())

    text = "say what training will take: memory, steps, bytes, speed, hours"
    plan = _with_params(commands, "plan", text, run, _PLAN_EXAMPLES)
    plan.add_argument("--gpus", type=int, metavar="N", help="ranks, one a GPU; default: machine.ranks, or this machine")
    plan.add_argument("--gpu", metavar="NAME", help="which one, as H100: gives its memory and an assumed speed")
    plan.add_argument("--gpu-memory", metavar="SIZE", help="of one GPU, as 16GiB")
    plan.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="training pairs (train.epoch_of captions: captions); default: what the manifest has",
    )
    plan.add_argument("--measure", action="store_true", help="calibrate with a few real steps on this machine")
    plan.add_argument("--json", type=Path, metavar="FILE", help="also write the plan there")


def _fetch_weights(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        params = _load(arguments)
        from zerovl.commands import fetch_weights

        fetch_weights.fetch(params.model)

    _with_params(commands, "fetch-weights", "download the pretrained towers that params.yaml names, once", run)


def _doctor(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from zerovl.commands import doctor

        return doctor.run(Path(arguments.params))

    _with_params(commands, "doctor", "check this machine: Python, torch, GPUs, disk, store, Prefect", run)


def _recipe(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import recipe

        recipe.apply(arguments.recipe, arguments.overrides, Path(arguments.out))

    examples = "examples: zerovl recipe auto data.raw=data/raw; zerovl recipe recipes/small-real.yaml train.seed=1"
    recipe = _command(commands, "recipe", "write params.yaml from a recipe", run, examples)
    what = "a recipe; 'demo' for the defaults; 'auto' for settings chosen for the data of data.raw, with reasons"
    recipe.add_argument("recipe", metavar="FILE", help=what)
    recipe.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the recipe, as in train.lr=1e-3")
    recipe.add_argument("--out", default="params.yaml", metavar="FILE", help="default: params.yaml")


def _summary(commands: Subparsers) -> None:
    def run(_arguments: argparse.Namespace) -> None:
        from zerovl.commands import summary
        from zerovl.workspace import Workspace

        summary.show(Workspace())

    _command(commands, "summary", "what the last run of the pipeline came to", run)


def _compare(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import compare
        from zerovl.workspace import Workspace

        json = Path(arguments.json) if arguments.json else None
        compare.run(arguments.references, Path(arguments.out), json, Workspace())

    text = "scores, parameters, curves and queries of two or more models side by side"
    compare = _command(commands, "compare", text, run, _COMPARE_EXAMPLES)
    compare.add_argument(
        "references",
        nargs="+",
        metavar="REFERENCE",
        help="NAME@ALIAS, NAME@VERSION, a folder of a model, checkout or run, a git revision, an experiment of DVC; "
        "the first is what the others are held against",
    )
    compare.add_argument(
        "--out", default="reports/comparison.html", metavar="FILE.html", help="default: reports/comparison.html"
    )
    compare.add_argument("--json", metavar="FILE", help="also write the numbers there")


def _sweep(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import compare, sweep
        from zerovl.workspace import Workspace

        budget = sweep.Budget(arguments.trials, arguments.hours, arguments.seed)
        references = sweep.run(arguments.changes, budget, Workspace())
        if len(references) > 1:
            compare.run(references, Path(arguments.out), None, Workspace())

    text = "try combinations of settings as experiments of DVC, then compare them"
    sweep = _command(commands, "sweep", text, run, _SWEEP_EXAMPLES)
    sweep.add_argument(
        "changes", nargs="+", metavar="KEY=VALUE,VALUE", help="settings of params.yaml, all combinations"
    )
    sweep.add_argument("--trials", type=int, default=20, metavar="N", help="drawn from more combinations; default: 20")
    sweep.add_argument("--hours", type=float, default=24.0, help="then the running trial saves and ends; default: 24")
    sweep.add_argument("--seed", type=int, default=0, help="of the draw; default: 0")
    sweep.add_argument(
        "--out", default="reports/comparison.html", metavar="FILE.html", help="the page of the comparison"
    )


def _embed(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import embed

        model, images, out = arguments.model, Path(arguments.images), Path(arguments.out)
        if arguments.pairs and out.suffix == ".parquet":
            embed.run_table(model, Path(arguments.pairs), images, out, arguments.ranks)
        elif arguments.pairs and arguments.ranks != 1:
            raise ZeroVLError(f"--ranks {arguments.ranks}: one process makes an .npz of --pairs; name a .parquet")
        elif arguments.pairs:
            embed.run(model, Path(arguments.pairs), images, out)
        else:
            embed.run_pictures(model, images, out, arguments.ranks)

    embed = _command(commands, "embed", "embed the pairs of a CSV, or all pictures of a folder, into a file", run)
    embed.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    what = "columns image, image_id, caption, caption_id; without it all pictures of DIR are embedded"
    embed.add_argument("--pairs", metavar="CSV", help=what)
    embed.add_argument("--images", required=True, metavar="DIR", help="pictures; without --pairs WebDataset tars too")
    embed.add_argument("--out", required=True, metavar="FILE", help="an .npz, or for millions a .parquet")
    embed.add_argument(
        "--ranks", type=int, default=1, metavar="N", help="processes, but for an .npz of --pairs; default: 1"
    )


def _index(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import index

        csv = Path(arguments.pairs) if arguments.pairs else None
        given = (arguments.model, Path(arguments.images), csv, Path(arguments.out))
        index.run(*given, arguments.dtype, arguments.ranks)

    text = "embed pictures once, to search them in a second; run it again for what is new, changed or gone"
    index = _command(commands, "index", text, run)
    index.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    what = "pictures and WebDataset tars below a folder (data/shards too), one tar, or an .npz of `zerovl embed`"
    index.add_argument("--images", required=True, metavar="DIR|FILE", help=what)
    index.add_argument("--pairs", metavar="CSV", help="only the pictures of DIR that its column image names")
    index.add_argument("--out", required=True, metavar="INDEX", help="a folder")
    index.add_argument("--dtype", choices=("float32", "float16"), help="default: float32; float16 halves the index")
    index.add_argument("--ranks", type=int, default=1, metavar="N", help="processes, one a GPU; default: 1")


def _serve(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import serve

        images, index = (Path(given) if given else None for given in (arguments.images, arguments.index))
        serve.run(arguments.model, images, index, serve.Address(arguments.host, arguments.port))

    text = "a page on this machine where pictures are searched by words or by a picture"
    serve = _command(commands, "serve", text, run)
    serve.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--images", metavar="DIR", help="pictures and tars, indexed first; the index is kept in the cache"
    )
    where.add_argument("--index", metavar="INDEX", help="of `zerovl index`")
    serve.add_argument("--port", type=int, default=8000, help="default: 8000; 0: one that is free")
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, which nobody else reaches")


def _score(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import score

        score.run(Path(arguments.file))

    score = _command(commands, "score", "print the retrieval metrics of embeddings as JSON", run)
    score.add_argument("file", metavar="FILE.npz")


def _search(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import search

        out = Path(arguments.out) if arguments.out else None
        given = (arguments.model, arguments.query)
        if arguments.index:
            search.run_index(*given, Path(arguments.index), arguments.top, out)
        else:
            search.run(*given, Path(arguments.images), arguments.top, out)

    search = _command(commands, "search", "rank the pictures of a folder or an index by a query", run)
    search.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    search.add_argument("query")
    where = search.add_mutually_exclusive_group(required=True)
    where.add_argument("--images", metavar="DIR", help="embedded each time")
    where.add_argument("--index", metavar="INDEX", help="of `zerovl index`: nothing is embedded")
    search.add_argument("--top", type=int, default=10, metavar="K", help="default: 10")
    search.add_argument("--out", metavar="FILE.png", help="also draw what was found")


def _classify(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import classify

        given = (arguments.model, arguments.classes, Path(arguments.images), arguments.templates)
        classify.run(*given, arguments.top, arguments.json)

    examples = "example: zerovl classify zerovl@production --classes cat,dog --images photos --templates 'a {} asleep'"
    classify = _command(commands, "classify", "say which of some classes the pictures of a folder show", run, examples)
    classify.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    classify.add_argument("--classes", required=True, metavar="FILE.txt|A,B,C", help="a file has one name a line")
    classify.add_argument("--images", required=True, metavar="DIR")
    what = "name, photo, openai-imagenet-7, openai-imagenet-80; a file of templates; or one with {}; default: photo"
    classify.add_argument("--templates", default="photo", metavar="NAME|FILE.txt|TEXT", help=what)
    classify.add_argument("--top", type=int, default=1, metavar="K", help="classes a picture; default: 1")
    classify.add_argument("--json", action="store_true", help="print JSON, unreadable pictures included")


def _import_checkpoint(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.interop import original

        original.import_checkpoint(
            Path(arguments.file), arguments.image_tower, arguments.text_tower, Path(arguments.out)
        )

    text = "turn a checkpoint of the original ZeroVL code into a bundle"
    original = _command(commands, "import-checkpoint", text, run)
    original.add_argument("file", metavar="FILE.pth")
    original.add_argument("--image-tower", required=True, metavar="NAME", help="timm model name")
    original.add_argument("--text-tower", required=True, metavar="DIR|NAME", help="Hugging Face folder or name")
    original.add_argument("--out", required=True, metavar="MODEL")


def _convert_weights(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.interop import convert_weights

        convert_weights.convert(Path(arguments.folder))

    text = "write a Hugging Face folder's pytorch_model.bin as model.safetensors"
    convert = _command(commands, "convert-weights", text, run)
    convert.add_argument("folder", metavar="DIR", help="a text tower's folder")


def _export(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import export

        export.run(arguments.model, arguments.to, Path(arguments.out))

    export = _command(commands, "export", "write a model for another library, and compare the embeddings of both", run)
    export.add_argument("model", help="bundle folder, NAME@ALIAS or s3://...")
    export.add_argument("--to", required=True, choices=("open-clip", "hugging-face", "onnx"))
    export.add_argument("--out", required=True, metavar="DIR", help="a folder that is not there yet")


def _import(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.interop import import_folder

        import_folder.import_folder(Path(arguments.folder), Path(arguments.out))

    text = "turn a folder of another library into a bundle, and compare the embeddings of both"
    found = _command(commands, "import", text, run)
    found.add_argument("folder", metavar="DIR", help="of open_clip, or of a CLIPModel or SiglipModel of transformers")
    found.add_argument("--out", required=True, metavar="MODEL", help="a folder that is not there yet")


def _registry(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import registry, registry_notes, registry_retention

        registry.run(arguments, {**registry_notes.ACTIONS, **registry_retention.ACTIONS})

    def run_add(arguments: argparse.Namespace) -> None:
        from zerovl.commands import registry_add
        from zerovl.workspace import Workspace

        registry_add.add(arguments.reference, arguments.store, Workspace(), arguments.json)

    from zerovl.commands import registry_parser

    registry = _command(commands, "registry", "look at releases, fetch them, add them, move aliases, retire them", run)
    registry_parser.add_actions(registry).set_defaults(run=run_add)


if __name__ == "__main__":
    sys.exit(main())
