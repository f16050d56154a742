"""The arguments of `zerovl registry`; imports nothing but argparse, so that `zerovl --help` stays quick."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]

VERSION, ANY, ALIAS = "NAME@VERSION", "NAME@ALIAS|NAME@VERSION", "NAME@ALIAS"


def add_actions(registry: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give the parser of `zerovl registry` its options and a sub-parser an action; returns that of `add`."""
    _store(registry, None)
    actions = registry.add_subparsers(dest="action", required=True, metavar="ACTION")
    _looking(actions)
    _moving(actions)
    _noting(actions)
    _retiring(actions)
    text = "register the model of a run, an experiment or a revision, through the gate"
    return _action(actions, "add", text, "RUN|EXPERIMENT|REVISION")


def _action(actions: Actions, name: str, text: str, reference: str | None) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    _store(parser, argparse.SUPPRESS)  # what stands before the action counts where nothing stands behind it
    if reference:
        parser.add_argument("reference", metavar=reference)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _store(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "default: ZEROVL_STORE, else register.store of params.yaml"
    parser.add_argument("--store", metavar="FOLDER|s3://...", default=default, help=text)


def _looking(actions: Actions) -> None:
    listed = _action(actions, "list", "all models, their versions and aliases", None)
    listed.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="'METRIC>NUMBER'",
        help="as 'rsum>500' or 'retrieval.t2i_r1@SOURCE >= 30', in quotes; by > >= < <= =; several: all must hold",
    )
    listed.add_argument("--tag", dest="tagged", action="append", default=[], metavar="NAME", help="that have the tag")
    _action(actions, "show", "one version: files, metrics, provenance, verdict, notes", ANY)
    pull = _action(actions, "pull", "fetch a version, every digest checked", ANY)
    pull.add_argument("--out", metavar="DIR", help="default: the cache")
    _action(actions, "verify", "read every byte of a version in the store and compare digests", ANY)
    _action(actions, "history", "every move of an alias", ALIAS)


def _moving(actions: Actions) -> None:
    promote = _action(actions, "promote", "move an alias to a version", VERSION)
    promote.add_argument("alias")
    promote.add_argument("--why", default="", metavar="TEXT", help="kept in the history")
    promote.add_argument("--over-the-gate", action="store_true", help="also where the gate refused it; needs --why")
    rollback = _action(actions, "rollback", "move an alias back to the version before", ALIAS)
    rollback.add_argument("--why", default="", metavar="TEXT", help="kept in the history")


def _noting(actions: Actions) -> None:
    describe = _action(actions, "describe", "say what a version is; earlier words are kept", ANY)
    describe.add_argument("text")
    tag = _action(actions, "tag", "give a version a tag, which also keeps it from being retired", ANY)
    tag.add_argument("tag", help="letters, digits, '_', '-' and '.', as v1.2")
    untag = _action(actions, "untag", "take a tag from a version", ANY)
    untag.add_argument("tag")


def _retiring(actions: Actions) -> None:
    retire = _action(actions, "retire", "take a version out of use; its files go after a while (see gc)", VERSION)
    retire.add_argument("--why", required=True, metavar="TEXT", help="kept in the history")
    restore = _action(actions, "restore", "take a retired version back into use, while its files are there", VERSION)
    restore.add_argument("--why", default="", metavar="TEXT", help="kept in the history")
    expire = _action(actions, "expire", "retire the versions that register.keep of params.yaml does not keep", None)
    expire.add_argument("name", metavar="NAME")
    expire.add_argument("--params", default="params.yaml", metavar="FILE", help="default: params.yaml")
    gc = _action(actions, "gc", "remove files that only retired versions have, past their grace time", None)
    gc.add_argument("name", metavar="NAME")
    gc.add_argument("--grace", type=float, default=7.0, metavar="DAYS", help="since they were retired; default: 7")
    forget = _action(actions, "forget", "remove a picture from the sample of every version, now and later", None)
    forget.add_argument("name", metavar="NAME")
    picture = forget.add_mutually_exclusive_group(required=True)
    picture.add_argument(
        "--sha256",
        metavar="DIGEST",
        help="of the picture's bytes as the shards have them: also of one that no sample has yet",
    )
    picture.add_argument(
        "--key",
        metavar="KEY",
        help="of the picture in the sample of some version: `key` of its JSON in sample/pairs.tar, and in the manifest",
    )
    forget.add_argument("--why", required=True, metavar="TEXT", help="kept with the digest")
    for parser in (expire, gc):
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
