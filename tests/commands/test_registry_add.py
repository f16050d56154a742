"""`zerovl registry add`: an experiment, a run or a revision becomes a release later, from what DVC has of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.finished_pipeline import write_pipeline
from tests.support.paths import ROOT
from tests.support.versioned import make_dvc_project, versioned_environment
from zerovl import cli, params, params_file
from zerovl.commands import registry_add
from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.release import promote as promoting
from zerovl.release.holder import Holders
from zerovl.workspace import Workspace

pytestmark = [
    pytest.mark.usefixtures("registry_environment"),
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A commit with a model, and the experiment `higher-lr` with another one, of the run `ba9876543210`."""
    folder = tmp_path_factory.mktemp("added")
    workspace = Workspace(folder / "project")
    workspace.root.mkdir()
    environment = versioned_environment(folder)

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=workspace.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out for name in ("validate", "train", "evaluate") for out in stages[name]["outs"]]
    ours = {"all": {"cmd": "true", "params": ["train"], "outs": [*outs, "data/manifest"]}}
    run("git", "init", "--quiet")
    make_dvc_project(workspace.root)
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": ours}))
    (workspace.root / ".gitignore").write_text("/reports/\n/model/\n/data/manifest/\n/registry\n/runs\n")

    def write(weights: bytes, lr: str, fingerprint: str) -> None:
        write_pipeline(workspace, weights, rsum=300.0)
        write_json(workspace.training_run, {"fingerprint": fingerprint})
        write_json(workspace.runs / fingerprint / "fingerprint.json", {})
        settings = params_file.from_recipe({}, [f"train.lr={lr}"], "test")
        params_file.write(settings, workspace.root / "params.yaml")

    write(b"first", "1e-3", "0123456789ab")
    run("dvc", "commit", "--quiet", "--force", "all")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "-m", "first")
    write(b"second", "3e-3", "ba9876543210")
    run("dvc", "commit", "--quiet", "--force", "all")
    run("dvc", "exp", "save", "--name", "higher-lr")
    run("git", "checkout", "--quiet", "--", ".")
    run("git", "checkout", "--quiet", "-b", "half")  # what a `dvc repro` leaves that somebody ended
    half = [out for out in ours["all"]["outs"] if "manifest" not in str(out)]
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": {**ours["all"], "outs": half}}}))
    run("dvc", "commit", "--quiet", "--force", "all")
    run("git", "commit", "--quiet", "--all", "-m", "half")
    run("git", "checkout", "--quiet", "-")
    write(b"first", "1e-3", "0123456789ab")
    return workspace


@pytest.fixture
def registry(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(promoting, "check_release", lambda folder: "as evaluated")
    shutil.rmtree("registry", ignore_errors=True)
    return Registry(FolderStore(project.root / "registry"))


def test_an_experiment_with_its_provenance(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["registry", "add", "higher-lr"]) == 0
    printed = capsys.readouterr().out
    assert "registered zerovl@1 in registry" in printed
    assert "zerovl@production is version 1" in printed
    version = registry.resolve("zerovl@production")
    origin = version.provenance
    assert origin["experiment"] == "higher-lr"
    assert origin["run"] == {"fingerprint": "ba9876543210"}
    assert origin["params"]["train"]["lr"] == 3e-3  # its own, not those of the checkout
    assert origin["git"]["dirty"] is False
    assert len(origin["git"]["commit"]) == 40
    assert origin["dvc_lock"]
    assert version.metrics["mean"]["rsum"] == 300.0
    # Again, by its run: the same version.
    assert cli.main(["registry", "add", "runs/ba9876543210"]) == 0
    assert registry.numbers("zerovl") == [1]


def test_the_model_of_the_checkout_and_its_revision_are_one(registry: Registry) -> None:
    assert cli.main(["registry", "add", "runs/0123456789ab"]) == 0
    assert registry.resolve("zerovl@1").provenance["params"]["train"]["lr"] == 1e-3
    assert cli.main(["registry", "add", "HEAD"]) == 0
    assert registry.numbers("zerovl") == [1]


def test_parameters_that_are_not_the_runs_any_more(
    registry: Registry, project: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    described = project.runs / "0123456789ab" / "fingerprint.json"
    its = params.as_dict(params_file.load(Path("params.yaml")))
    for lr, status in ((5e-3, 2), (1e-3, 0)):
        write_json(described, {"model": its["model"], "train": {**its["train"], "lr": lr}})
        assert cli.main(["registry", "add", "runs/0123456789ab"]) == status
    write_json(described, {})
    assert "params.yaml is not the run's any more (train.lr was 0.005, is 0.001)" in capsys.readouterr().err


@pytest.mark.parametrize(("shards", "expected"), [("", [Path("data/shards")]), ("/mnt/shards", [])])
def test_shards_are_brought_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: str, expected: list[Path]
) -> None:
    brought: list[Path] = []
    monkeypatch.setattr(registry_add.revision, "copy_files", lambda *given: brought.extend(given[-1]))
    monkeypatch.setattr(Holders, "_score_again", lambda *_: "compared")
    there, here = Workspace(tmp_path / "aside"), Workspace(tmp_path / "checkout")
    machine = params.MachineParams(shards=shards)
    holders: Any = registry_add._HoldersBesideRevision(params.EvaluateParams(), there, machine, (), "HEAD", here)
    assert holders._score_again(None, None, None, "other data") == "compared"
    assert brought == expected
    assert holders.project == here.root  # tars in place are no files of a revision


def test_errors_name_what_was_typed_and_no_temporary_folder(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(reference: str) -> str:
        assert cli.main(["registry", "add", reference]) == 2
        return capsys.readouterr().err

    said = add("half")
    assert re.match(
        r"zerovl registry: half: revision [0-9a-f]{10} has no data/manifest/manifest\.json, in git or", said
    )
    for nothing in ("", " "):
        assert f"zerovl registry: {nothing!r}: names nothing; give a run's folder" in add(nothing)

    def broken(_params: object, workspace: Workspace, _source: object) -> None:
        raise ZeroVLError(f"{workspace.evaluation_metrics}: broken, as {workspace.manifest} is")

    monkeypatch.setattr(registry_add, "assemble", broken)
    assert add("higher-lr") == (
        "zerovl registry: higher-lr: reports/evaluation/metrics.json: broken, as data/manifest is\n"
    )
    assert not registry.names()


def test_what_has_no_model_is_named(registry: Registry, project: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(project.runs / "feedfeedfeed" / "fingerprint.json", {})
    for reference, words in (
        ("runs/feedfeedfeed", "neither in this checkout nor in an experiment"),
        (
            "no-such-thing",
            "'no-such-thing': nothing to register by this name; give a run's folder",
        ),
        ("model", "by this name (it has no fingerprint.json, so it is not a run); give a run's folder"),
        ("zerovl@1", "'zerovl@1': nothing to register by this name; give a run's folder"),
    ):
        assert cli.main(["registry", "add", reference]) == 2
        assert words in capsys.readouterr().err
    assert not registry.names()
