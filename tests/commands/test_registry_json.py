"""`zerovl registry ACTION --json`: one JSON value with the keys that scripts read, for each action that there is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.finished_pipeline import write_pipeline
from tests.support.registries import Bundle, promote, publish
from zerovl import cli, params_file
from zerovl.commands import registry_parser
from zerovl.files import write_json
from zerovl.registry.registry import Registry
from zerovl.workspace import Workspace

MOVE = {"name", "alias", "number", "version", "action", "why", "by", "when", "verdict", "check"}
NOTE = {"name", "version", "number", "action", "text", "by", "when", "replaced"}
CHECKED = {"reference", "files", "bytes", "digests"}
SAID = {"description", "tags", "state"}
VERSION = {"name", "number", "identity", "created", "by", "metrics", "files", "provenance", "verdict"}
ROW = {"name", "version", "created", "by", "bytes", "rsum", "of", "passed", "aliases", *SAID}
# Of each action its words, the keys of what it prints (of each one in a list), and values among them. There are
# zerovl@1, which had the alias production, zerovl@2, which has it, and zerovl@3.
FORMS: dict[str, tuple[list[str], set[str], dict[str, Any]]] = {
    "list": ([], ROW, {"version": 3}),
    "show": (["zerovl@2"], {"reference", "store", "aliases", "notes", *SAID, *VERSION}, {"aliases": ["production"]}),
    "pull": (["zerovl@1", "--out", "pulled"], {*CHECKED, "folder"}, {"folder": "pulled", "digests": "right"}),
    "verify": (["zerovl@1"], CHECKED, {"reference": "zerovl@1", "files": 6}),
    "history": (["zerovl@production"], {*MOVE, "state", "hooks"}, {"number": 2, "state": "in use"}),
    "promote": (["zerovl@3", "production"], {*MOVE, "moved", "before"}, {"moved": True, "before": 2, "version": 3}),
    "rollback": (["zerovl@production"], {*MOVE, "moved", "before"}, {"moved": True, "before": 2, "version": 1}),
    "describe": (["zerovl@1", "of the paper"], {*NOTE, "added"}, {"added": True, "text": "of the paper"}),
    "tag": (["zerovl@1", "paper"], {*NOTE, "added"}, {"added": True, "action": "tag", "text": "paper"}),
    "untag": (["zerovl@1", "paper"], {"added"}, {"added": False}),
    "retire": (["zerovl@3", "--why", "old"], NOTE, {"version": 3, "action": "retire", "text": "old"}),
    "restore": (["zerovl@3"], NOTE, {"version": 3, "action": "restore"}),
    "expire": (["zerovl", "--dry-run"], {"keep", "dry_run", "versions"}, {"dry_run": True, "versions": []}),
    "gc": (["zerovl", "--grace", "0"], {"dry_run", "bytes", "files", "waiting"}, {"dry_run": False, "waiting": []}),
    "forget": (
        ["zerovl", "--sha256", "0" * 64, "--why", "asked"],
        {"pictures", "versions", "removed"},
        {"pictures": ["0" * 64], "versions": []},
    ),
    "add": (
        ["runs/0123456789ab"],
        {"reference", "store", "new", "verdict", "move", "moved_away"},
        {"reference": "zerovl@4", "new": True, "moved_away": ""},
    ),
}
Run = Callable[..., Any]


def actions() -> list[str]:
    """All actions that the command has."""
    parser = argparse.ArgumentParser()
    registry_parser.add_actions(parser)
    (found,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return list(found.choices)


@pytest.fixture
def run(
    registry_environment: None,
    unchecked: None,
    local: Registry,
    make_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs the command on a registry of three versions, in a folder with a run that is no release yet."""
    monkeypatch.chdir(tmp_path)
    for content in "abc":
        version = publish(local, make_bundle(content))
        if content != "c":
            promote(local, version)
    here = Workspace()
    write_pipeline(here, b"weights", rsum=300.0)
    params_file.write(params_file.from_recipe({}, ["register.alias=''"], "test"), "params.yaml")
    write_json(here.training_run, {"fingerprint": "0123456789ab"})
    write_json(here.runs / "0123456789ab" / "fingerprint.json", {})

    def run(*words: str) -> Any:
        capsys.readouterr()
        assert cli.main(["registry", "--store", local.store.uri, *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("action", actions())
def test_each_action_prints_one_value_with_its_keys(action: str, run: Run) -> None:
    assert action in FORMS, f"`zerovl registry {action} --json`: what it prints is to be written into FORMS"
    words, keys, values = FORMS[action]
    if action == "restore":
        run("retire", "zerovl@3", "--why", "old")
    told = run(action, *words)
    first = told[0] if action in ("list", "history") else told
    assert set(first) == keys
    assert {key: first[key] for key in values} == values
