"""Models in use, and models that come and go."""

from __future__ import annotations

import argparse
from pathlib import Path

from zerovl.command_line.parts import Subparsers, command, file_of_kind, file_to_write

_RANKS = "processes, one a GPU; default: one a GPU that is free, on a machine without any one"
_EXACT = "look at all pictures, also where INDEX was made with --approximate"


def add_to(commands: Subparsers) -> None:
    """Add these commands, in the order in which `zerovl --help` shows them."""
    _embed(commands)
    _index(commands)
    _serve(commands)
    _score(commands)
    _search(commands)
    _classify(commands)
    _import_checkpoint(commands)
    _convert_weights(commands)
    _export(commands)
    _push(commands)
    _import(commands)


def _embed(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import embed

        model, images, out = arguments.model, Path(arguments.images), Path(arguments.out)
        if arguments.pairs:
            embed.run(model, Path(arguments.pairs), images, out, arguments.ranks)
        else:
            embed.run_pictures(model, images, out, arguments.ranks)

    embed = command(commands, "embed", "embed the pairs of a CSV, or all pictures of a folder, into a file", run)
    embed.add_argument("model", help="bundle folder, NAME@ALIAS, NAME@VERSION or s3://...")
    what = "columns image, image_id, caption, caption_id; without it all pictures of DIR are embedded"
    embed.add_argument("--pairs", metavar="CSV", help=what)
    embed.add_argument("--images", required=True, metavar="DIR", help="pictures; without --pairs WebDataset tars too")
    embed.add_argument("--out", type=file_to_write, required=True, metavar="FILE", help="an .npz or a .parquet")
    embed.add_argument("--ranks", type=int, metavar="N", help=_RANKS)


def _index(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import index

        csv = Path(arguments.pairs) if arguments.pairs else None
        given = (arguments.model, Path(arguments.images), csv, Path(arguments.out))
        index.run(*given, arguments.dtype, arguments.ranks, arguments.approximate)

    text = "embed pictures once, to search them in a second; run it again for what is new, changed or gone"
    index = command(commands, "index", text, run)
    index.add_argument("model", help="bundle folder, NAME@ALIAS, NAME@VERSION or s3://...")
    what = "pictures and WebDataset tars below a folder (data/shards too), one tar, or a file of `zerovl embed`"
    index.add_argument("--images", required=True, metavar="DIR|FILE", help=what)
    index.add_argument("--pairs", metavar="CSV", help="only the pictures of DIR that its column image names")
    index.add_argument("--out", required=True, metavar="INDEX", help="a folder")
    index.add_argument("--dtype", choices=("float32", "float16"), help="default: float32; float16 halves the index")
    index.add_argument("--ranks", type=int, metavar="N", help=_RANKS)
    index.add_argument(
        "--approximate",
        action="store_true",
        help="also make what a search needs that looks at a share of many millions (zerovl[search-faiss])",
    )


def _serve(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import serve

        images, index = (Path(given) if given else None for given in (arguments.images, arguments.index))
        serve.run(arguments.model, images, index, serve.Address(arguments.host, arguments.port), arguments.exact)

    text = "a page on this machine where pictures are searched by words or by a picture"
    serve = command(commands, "serve", text, run)
    serve.add_argument("model", help="bundle folder, NAME@ALIAS, NAME@VERSION or s3://...")
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--images", metavar="DIR", help="pictures and tars, indexed first; the index is kept in the cache"
    )
    where.add_argument("--index", metavar="INDEX", help="of `zerovl index`")
    serve.add_argument("--port", type=int, default=8000, help="default: 8000; 0: one that is free")
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, which nobody else reaches")
    serve.add_argument("--exact", action="store_true", help=_EXACT)


def _score(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import score

        score.run(Path(arguments.file))

    score = command(commands, "score", "print the retrieval metrics of embeddings as JSON", run)
    score.add_argument("file", metavar="FILE", help="an .npz or .parquet of `zerovl embed --pairs`")


def _search(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import search

        out = Path(arguments.out) if arguments.out else None
        given = (arguments.model, arguments.query)
        if arguments.index:
            search.run_index(*given, Path(arguments.index), arguments.top, out, arguments.exact)
        else:
            search.run(*given, Path(arguments.images), arguments.top, out)

    search = command(commands, "search", "rank the pictures of a folder or an index by a query", run)
    search.add_argument("model", help="bundle folder, NAME@ALIAS, NAME@VERSION or s3://...")
    search.add_argument("query")
    where = search.add_mutually_exclusive_group(required=True)
    where.add_argument("--images", metavar="DIR", help="embedded each time")
    where.add_argument("--index", metavar="INDEX", help="of `zerovl index`: nothing is embedded")
    search.add_argument("--top", type=int, default=10, metavar="K", help="default: 10")
    search.add_argument("--out", type=file_of_kind(".png"), metavar="FILE.png", help="also draw what was found")
    search.add_argument("--exact", action="store_true", help=_EXACT)


def _classify(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import classify

        given = (arguments.model, arguments.classes, Path(arguments.images), arguments.templates)
        classify.run(*given, arguments.top, arguments.json)

    examples = "example: zerovl classify zerovl@production --classes cat,dog --images photos --templates 'a {} asleep'"
    classify = command(commands, "classify", "say which of some classes the pictures of a folder show", run, examples)
    classify.add_argument("model", help="bundle folder, NAME@ALIAS, NAME@VERSION or s3://...")
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
    original = command(commands, "import-checkpoint", text, run)
    original.add_argument("file", metavar="FILE.pth")
    original.add_argument("--image-tower", required=True, metavar="NAME", help="timm model name")
    original.add_argument("--text-tower", required=True, metavar="DIR|NAME", help="Hugging Face folder or name")
    original.add_argument("--out", required=True, metavar="MODEL")


def _convert_weights(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.interop import convert_weights

        convert_weights.convert(Path(arguments.folder))

    text = "write a Hugging Face folder's pytorch_model.bin as model.safetensors"
    convert = command(commands, "convert-weights", text, run)
    convert.add_argument("folder", metavar="DIR", help="a text tower's folder")


def _export(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import export

        export.run(arguments.model, arguments.to, Path(arguments.out), arguments.license)

    export = command(commands, "export", "write a model for another library, and compare the embeddings of both", run)
    export.add_argument("model", help="bundle folder, NAME@ALIAS, NAME@VERSION or s3://...")
    export.add_argument("--to", required=True, choices=("open-clip", "hugging-face", "onnx"))
    export.add_argument("--out", required=True, metavar="DIR", help="a folder that is not there yet")
    what = "for the card, by the hub's short name: apache-2.0, cc-by-nc-4.0, other; default: none is named"
    export.add_argument("--license", default="", metavar="NAME", help=what)


def _push(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.interop import hub_push

        folder, repository = Path(arguments.folder), arguments.repository
        print(hub_push.push(folder, repository, arguments.message, private=not arguments.public))

    push = command(commands, "push", "send the folder of an export to a model hub (HF_ENDPOINT, HF_TOKEN)", run)
    push.add_argument("folder", metavar="DIR", help="that `zerovl export` wrote")
    push.add_argument("repository", metavar="ORGANISATION/NAME", help="created where it is not there")
    push.add_argument("--public", action="store_true", help="a repository that is created is for all; default: private")
    push.add_argument("--message", default="Export of a ZeroVL model", help="of the commit")


def _import(commands: Subparsers) -> None:
    def run(arguments: argparse.Namespace) -> None:
        from zerovl.interop import import_folder

        import_folder.import_folder(Path(arguments.folder), Path(arguments.out))

    text = "turn a folder of another library into a bundle, and compare the embeddings of both"
    found = command(commands, "import", text, run)
    found.add_argument("folder", metavar="DIR", help="of open_clip, or of a CLIPModel or SiglipModel of transformers")
    found.add_argument("--out", required=True, metavar="MODEL", help="a folder that is not there yet")
