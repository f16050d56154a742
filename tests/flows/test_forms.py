"""The forms of the UI, and the same as options of commands."""

import runpy
import sys
import warnings
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import pytest
import yaml
from prefect import Flow
from prefect.exceptions import ParameterTypeError

from flows import command, pipeline
from flows.forms import KnownRecipe, recipe_file
from flows.notify import notify
from flows.promote import promote
from flows.reproduce import reproduce
from flows.retention import retention
from flows.retrain import retrain
from flows.rollback import rollback
from flows.runtime import failure_log
from flows.settings import Setting
from flows.train import train
from tests.support.paths import ROOT
from tests.support.project_copy import commit, copy_project, git
from zerovl import params, params_file
from zerovl.errors import ZeroVLError
from zerovl.yaml_file import read_yaml

FLOWS = (train, retrain, promote, rollback, reproduce, retention, notify)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
def test_a_flow_that_fails_says_why_and_no_more(flow: Flow[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first line on: before it there is nothing that could fail."""

    class Installed(BaseException):
        pass

    monkeypatch.setattr(failure_log, "install", Mock(side_effect=Installed))
    with pytest.raises(Installed):
        flow.fn(**dict.fromkeys(flow.parameters.required, "none"))


def test_every_recipe_can_be_chosen() -> None:
    files = {recipe_file(name) for name in get_args(KnownRecipe)}
    assert files == {"params.yaml", "demo", *(f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml"))}


def test_a_recipe_of_ones_own_is_a_file() -> None:
    assert recipe_file("recipes/mine.yaml") == "recipes/mine.yaml"
    train.validate_parameters({"recipe": "../elsewhere/mine.yml"})
    for name in ("--help.yaml", "photo", "recipes/mine.txt"):
        with pytest.raises(ParameterTypeError):
            train.validate_parameters({"recipe": name})


def test_a_recipe_of_ones_own_is_taken_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def check(**arguments: Any) -> None:
        given.update(arguments)
        raise KeyboardInterrupt  # before a server is started

    monkeypatch.setattr(sys, "argv", ["flows.train", "--recipe", "recipes/mine.yaml"])
    with pytest.raises(SystemExit):
        command.main(train, check)
    assert given["recipe"] == "recipes/mine.yaml"


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("params.yaml", ["train.lrr=1e-3"], "train.lrr: unknown key"),
        ("params.yaml", ["train.lr=-1"], "train.lr: -1 is not accepted"),
        ("demo", ["train.batch_size=100"], "batch_size 100 is not a multiple"),
        ("recipes/mine.yaml", [], "no such file"),
        ("mine.yaml", [], "train.bach_size: unknown key"),
    ],
)
def test_a_mistake_ends_a_run_before_its_checkout(
    recipe: str, overrides: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROVL_ROOT", str(tmp_path))
    git(tmp_path, "init", "--quiet")
    params_file.write(params.Params(), tmp_path / "params.yaml")
    commit(tmp_path, "first")
    (tmp_path / "params.yaml").write_text("edited: since")  # the run does not see it
    (tmp_path / "mine.yaml").write_text("train: {bach_size: 4}")  # git does not know it
    assert pipeline.problem_of("params.yaml", ["train.lr=1e-4"], pipeline.find_commit("HEAD")) == ""
    chosen = [
        Setting(key=f"{each.partition('=')[0]}: its sentence", value=each.partition("=")[2]) for each in overrides
    ]
    both: list[tuple[Any, Any]] = [(train, {"overrides": overrides}), (retrain, {"settings": chosen})]
    for flow, given in both:
        ended = flow.fn(recipe=recipe, **given)  # as the flow runs, without a server
        assert ended.is_failed()
        assert words in ended.message
    assert not (tmp_path / ".flows").exists()


def test_a_mistake_for_another_commit_is_found_by_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_project(tmp_path / "project")
    monkeypatch.setenv("ZEROVL_ROOT", str(root))
    schema = root / "zerovl" / "params" / "train.py"
    schema.write_text(schema.read_text().replace("weight_decay", "decay_of_weights"))
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("weight_decay", "decay_of_weights"))
    (root / "recipes" / "theirs.yaml").write_text("train: {decay_of_weights: 0.5}")
    git(root, "checkout", "--quiet", "-b", "theirs")
    commit(root, "another name for a key")
    git(root, "checkout", "--quiet", "main")
    (root / "mine.yaml").write_text("train: {weight_decay: 0.5}")  # git does not know it
    theirs = pipeline.find_commit("theirs")
    assert pipeline.problem_of("params.yaml", ["train.decay_of_weights=0.1"], theirs) == ""
    assert pipeline.problem_of("recipes/theirs.yaml", [], theirs) == ""
    given: list[tuple[str, list[str]]] = [("params.yaml", ["train.weight_decay=0.1"]), ("mine.yaml", [])]
    for recipe, overrides in given:
        ended = train.fn(recipe=recipe, overrides=overrides, revision="theirs")
        assert ended.is_failed()
        assert ended.message.startswith(f"commit {theirs[:12]}: zerovl recipe: ")
        assert "train.weight_decay: unknown key" in ended.message
    assert not (root / ".flows").exists()
    assert git(root, "branch", "--list", "runs/*") == ""
    # A command says it before it starts a server, of what the remote has by then too.
    git(root, "clone", "--quiet", "--bare", ".", str(tmp_path / "remote.git"))
    git(root, "branch", "--quiet", "-D", "theirs")
    git(root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    pipeline.check("params.yaml", ["train.decay_of_weights=0.1"], "theirs")
    with pytest.raises(ZeroVLError, match=rf"(?s)^commit {theirs[:12]}: .*train\.weight_decay: unknown key"):
        pipeline.check("params.yaml", ["train.weight_decay=0.1"], "theirs")
    git(root, "remote", "set-url", "origin", str(tmp_path / "gone.git"))
    pipeline.check("params.yaml", ["train.decay_of_weights=0.1"], "theirs")
    assert "going on with the commits that are here" in capsys.readouterr().err


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_field_of_a_form_is_described(flow: Any) -> None:
    assert flow.description
    for name, field in flow.parameters.properties.items():
        assert field.get("description"), f"{flow.name}: {name}"


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_flow_has_a_deployment_and_a_command(
    flow: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    entries = [each["entrypoint"] for each in deployments]
    assert f"flows/{flow.name}.py:{flow.name}" in entries
    # As `python -m` runs it, without a new Python that imports Prefect.
    monkeypatch.setattr(sys, "argv", [f"flows.{flow.name}", "--help"])
    warnings.simplefilter("ignore")  # the module is imported already; pytest resets the filters
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"flows.{flow.name}", run_name="__main__")
    said = capsys.readouterr().out
    assert not ended.value.code
    assert f"usage: python -m flows.{flow.name}" in said
    for name in flow.parameters.properties:  # what a form offers in a list, a command has as --overrides
        assert (f"--{name.replace('_', '-')}" in said) == (name != "settings")


def test_the_parameters_of_a_deployment_are_those_of_its_flow() -> None:
    known = {flow.name: set(flow.parameters.properties) for flow in FLOWS}
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        flow = deployment["entrypoint"].partition(":")[2]
        given = set(deployment.get("parameters", {}))
        for trigger in deployment.get("triggers", []):
            given |= set(trigger["parameters"])
        assert given <= known[flow], deployment["name"]


def test_params_yaml_is_a_recipe_of_itself(tmp_path: Path) -> None:
    """What the form's first choice rests on."""
    changes = read_yaml(ROOT / "params.yaml")
    again = params_file.from_recipe(changes, ["register.alias=''"], "params.yaml")
    assert again.register_.alias == ""
    assert params.as_dict(params_file.from_recipe(changes, [], "params.yaml")) == params.as_dict(
        params_file.load(ROOT / "params.yaml")
    )
