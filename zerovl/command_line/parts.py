"""What the commands share: how one is added, and how it gets its parameters.

One function a command, its arguments and what it does side by side. Parameters are read and checked before anything
heavy is imported, so that a misspelt key is told in a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zerovl.errors import ZeroVLError

if TYPE_CHECKING:
    from zerovl.params import Params

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
    """A parser that answers a misspelt command or choice with the one it is most like, where there is one.

    argparse does so itself from Python 3.14 on (`suggest_on_error`). Options may stand between arguments of which there
    are several, where argparse takes the first for all of them.
    """

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        """Take the options out first, then what is left for arguments of which there are several.

        Not where `--` ends the options, which Python 3.11 would lose.
        """
        several = any(action.nargs in ("*", "+") for action in self._get_positional_actions())
        if self._mixing or not several or "--" in (args or ()):
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        from difflib import get_close_matches

        choices = [str(choice) for choice in action.choices or ()]
        if value not in choices and (near := get_close_matches(str(value), choices, 1)):
            raise argparse.ArgumentError(action, f"{value!r} is not known; did you mean {near[0]!r}?")
        super()._check_value(action, value)


def command(commands: Subparsers, name: str, text: str, run: Run, examples: str = "") -> argparse.ArgumentParser:
    """Add a command, with what it runs and examples for its help; returns its parser."""
    parser = commands.add_parser(
        name, help=text, description=text, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def with_params(commands: Subparsers, name: str, text: str, run: Run, examples: str = "") -> argparse.ArgumentParser:
    """Add a command that reads a file of parameters; returns its parser."""
    parser = command(commands, name, text, run, examples)
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="default: params.yaml")
    return parser


def file_to_write(text: str) -> str:
    """Return the name of a file that a command writes at its end; one that cannot be a file is told at its start."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name a file in it")
    return text


def file_of_kind(*suffixes: str) -> Callable[[str], str]:
    """Return a check as `file_to_write` is, which also refuses a name that says another kind of file."""

    def check(text: str) -> str:
        file_to_write(text)
        if Path(text).suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(
                f"{text!r}: give a name that ends in {' or '.join(suffixes)}, which it will be"
            )
        return text

    return check


def load(arguments: argparse.Namespace) -> Params:
    """Return the checked parameters of the file that a command was given; raises `ZeroVLError`."""
    from zerovl import params_file

    return params_file.load(arguments.params)


def need(*files: Path) -> None:
    """Raise `ZeroVLError` for a file of an earlier stage that is not there, before what reads it is imported."""
    for file in files:
        if not file.is_file():
            raise ZeroVLError(f"{file}: no such file; run the stage that makes it first (`dvc repro`)")
