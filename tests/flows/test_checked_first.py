"""What cannot be right is said at once: no flow begins, so that no server is started for it."""

import runpy
import sys
import warnings
from pathlib import Path
from typing import NoReturn

import pytest
from prefect import Flow

from flows import command, promote, reproduce, rollback
from tests.support.project_copy import commit, git
from tests.support.registries import publish
from zerovl import params_file
from zerovl.params import Params
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store


@pytest.fixture(autouse=True)
def registry(registry_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with one release, which no alias has; a flow that begins fails the test."""

    def begin(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("the flow begins")

    monkeypatch.setenv("ZEROVL_STORE", str(tmp_path / "registry"))
    monkeypatch.setattr(Flow, "__call__", begin)
    monkeypatch.setattr(command, "start_own_server", lambda: None)
    registry = Registry(open_store(str(tmp_path / "registry")))
    publish(registry, {"model.safetensors": b"weights"})
    return registry


def test_a_release_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["promote", "--release", "zerovl@99", "--why", "a test"])
    with pytest.raises(SystemExit, match=r"flows\.promote: folder .*: there is no zerovl@99; "):
        command.main(promote.promote, promote.check)
    monkeypatch.setattr(sys, "argv", ["promote", "--release", "zerovl@1", "--why", "a test"])
    with pytest.raises(SystemExit, match="the flow begins"):
        command.main(promote.promote, promote.check)


def test_a_release_that_the_gate_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(registry, {"model.safetensors": b"worse"}, verdict={"passed": False, "reasons": []})
    given = ["promote", "--release", "zerovl@2", "--why", "a test"]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit, match=r"^flows\.promote: zerovl@2 was refused by the gate: .*--over-the-gate"):
        command.main(promote.promote, promote.check)
    monkeypatch.setattr(sys, "argv", [*given, "--over-the-gate"])
    with pytest.raises(SystemExit, match="the flow begins"):
        command.main(promote.promote, promote.check)


@pytest.mark.parametrize(
    ("git", "why"),
    [(None, "was made outside git"), ({"commit": "3f2a" * 10, "dirty": True}, "commit before `dvc repro`")],
)
def test_a_release_that_cannot_be_made_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, git: dict[str, object] | None, why: str
) -> None:
    publish(registry, {"model.safetensors": b"others"}, provenance={"git": git})
    monkeypatch.setattr(sys, "argv", ["reproduce", "--release", "zerovl@2"])
    with pytest.raises(SystemExit, match=rf"^flows\.reproduce: zerovl@2 .*{why}"):
        command.main(reproduce.reproduce, reproduce.check)


@pytest.mark.parametrize("name", ["train", "retrain"])
def test_a_misspelt_key_and_a_recipe_that_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setenv("ZEROVL_ROOT", str(root))
    git(root, "init", "--quiet", "--initial-branch", "main")
    params_file.write(Params(), root / "params.yaml")
    commit(root, "first")

    warnings.simplefilter("ignore")  # the module is imported already; pytest resets the filters

    def said(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"flows.{name}", run_name="__main__")
        return str(ended.value)

    misspelt = said("--overrides", "train.lrr=1e-3")
    assert misspelt.startswith(f"flows.{name}: ")
    assert "train.lrr: unknown key" in misspelt
    assert "recipes/mine.yaml: no such file" in said("--recipe", "recipes/mine.yaml")
    assert "git knows no revision 'nowhere'" in said("--revision", "nowhere")
    right = ("--overrides", "train.lr=1e-3")
    for words in (right, (*right, "--revision", "main")):
        assert said(*words) == f"flows.{name}: the flow begins"
    assert not (root / ".flows").exists()


def test_an_alias_with_nothing_to_go_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rollback", "--why", "a test"])
    with pytest.raises(SystemExit, match=r"flows\.rollback: folder .*: there is no zerovl@production; "):
        command.main(rollback.rollback, rollback.check)
