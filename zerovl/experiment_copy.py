"""Commands in a temporary copy of the project, as DVC makes one for `dvc exp run --temp` and each task of its queue.

The code that runs is that of the copy: it is what the experiment's commit has, while the main checkout may be edited
meanwhile. What git and DVC do not know stays in the main checkout and is used from there: `runs/` and a store in a
relative folder (`Workspace.shared`), and pretrained towers, weights and sets of pictures, by links.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.workspace import main_checkout

_PACKAGE = Path(__file__).resolve().parent
# Keys of params.yaml that may name files which neither git nor DVC has.
_NAMED = (
    ("model", "image_tower", "weights"),
    ("model", "text_tower", "name"),
    ("prepare", "filters", "agreement", "model"),
    ("prepare", "filters", "semantic_duplicates", "model"),
    ("train", "init_from"),
    ("machine", "shards"),
    ("machine", "shard_cache", "folder"),
)
_NAMED_BY_SETS = ("folder", "csv", "shards", "classnames")


def enter(arguments: Sequence[str], folder: Path = Path(".")) -> None:
    """Link what a copy lacks, and start the command again with the copy's code; does nothing elsewhere.

    Args:
        arguments: of `zerovl`.
        folder: the project's folder, where the command runs.
    """
    main = main_checkout(folder)
    if main is None:
        return
    from zerovl.yaml_file import read_yaml  # PyYAML, which `zerovl --help` does without

    with suppress(ZeroVLError):  # the command says what is wrong with params.yaml
        link_named_files(read_yaml(folder / "params.yaml"), main, folder)
    package = folder.resolve() / _PACKAGE.name
    if (package / "cli.py").is_file() and package != _PACKAGE:
        places = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        os.execve(sys.executable, [sys.executable, "-m", "zerovl.cli", *arguments], environment)


def link_named_files(params: Mapping[str, Any], main: Path, copy: Path) -> None:
    """Link files and folders that `params` name by a relative path, where the main checkout alone has them."""
    for name in _named(params):
        path = Path(name)
        if not name or path.is_absolute() or ".." in path.parts or not (main / path).exists():
            continue
        for end in range(1, len(path.parts) + 1):
            part = Path(*path.parts[:end])
            if not (copy / part).exists():
                (copy / part).symlink_to((main / part).resolve())
                break


def _named(params: Mapping[str, Any]) -> Iterator[str]:
    """Values that may be paths; parameters are not checked yet."""
    for keys in _NAMED:
        value: Any = params
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            yield value
    evaluate = params.get("evaluate")
    sets = evaluate.get("classification") if isinstance(evaluate, dict) else None
    for its in sets if isinstance(sets, list) else []:
        if isinstance(its, dict):
            yield from (its[key] for key in _NAMED_BY_SETS if isinstance(its.get(key), str))
