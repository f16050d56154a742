"""What `zerovl registry` shows and does with what the stage registered."""

from __future__ import annotations

import getpass
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.register_stage import Write, checked, run_stage, settings
from tests.support.registries import publish
from zerovl import cli
from zerovl.commands import registry as registry_commands
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.release import promote as promoting
from zerovl.release.gate import Reason
from zerovl.workspace import Workspace

pytestmark = pytest.mark.usefixtures("registry_environment")


def test_the_commands(
    workspace: Workspace,
    write: Write,
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(promoting, "check_release", checked)
    store = str(workspace.root / "registry")

    def run(*arguments: str) -> list[str]:
        capsys.readouterr()
        assert cli.main(["registry", "--store", store, *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    assert run("list")[0].startswith(f"no models in folder {store}")
    run_stage(settings(), workspace)
    write(b"worse", rsum=250.0)
    run_stage(settings(), workspace)
    head, worse, first = run("list")
    assert head.split() == ["MODEL", "VERSION", "CREATED", "(UTC)", "RSUM", "OF", "MB", "GATE", "ALIASES", "BY"]
    assert worse.split()[:2] + worse.split()[4:] == ["zerovl", "2", "250.0", "mean", "0.0", "FAILED", "-", "test-run"]
    assert first.split()[:2] + first.split()[4:] == [
        *("zerovl", "1", "300.0", "mean", "0.0", "passed", "production", "test-run")
    ]
    assert head.index("GATE") == worse.index("FAILED") == first.index("passed")
    shown = run("show", "zerovl@production")
    assert shown[0] == "version zerovl@1 (production)"
    (at,) = [place for place, line in enumerate(shown) if line.startswith("SCORES")]
    assert [line.split() for line in shown[at : at + 4]] == [
        ["SCORES", "mean", "pool", "shapes", "web"],
        ["rsum", "300", "[292.5", "to", "308.2]", "100", "[292.5", "to", "308.2]", "300", "300"],
        ["chance_rsum", "16", "16", "-", "-"],
        ["i2t_r1", "40.12", "40.12", "-", "-"],
    ]
    assert any(line.split()[:1] == ["model.safetensors"] and len(line.split()[2]) == 64 for line in shown)
    assert "all digests right" in run("verify", "zerovl@2")[0]
    assert run("pull", "zerovl@2", "--out", str(tmp_path / "out"))[-1] == str(tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"worse"
    assert (Path(run("pull", "zerovl@1")[-1]) / "model.safetensors").read_bytes() == b"weights"
    over = ("promote", "zerovl@2", "production", "--over-the-gate")
    for words in (over[:3], (*over[:3], "--why", "by hand"), over, (*over, "--why", " ")):
        assert cli.main(["registry", "--store", store, *words]) == 2
        refusal = capsys.readouterr().err
        assert "zerovl@2 was refused by the gate: FAILED, max_drop mean: 50.00" in refusal
        assert "--over-the-gate --why TEXT" in refusal
    assert registry.resolve("zerovl@production").number == 1
    promoted = "\n".join(run(*over, "--why", "by hand"))
    assert "the gate refused zerovl@2" in promoted
    assert "version 1 -> version 2" in promoted
    assert "is version 2 already" in run("promote", "zerovl@2", "production")[0]
    assert "version 2 -> version 1" in run("rollback", "zerovl@production", "--why", "it was worse")[0]
    history = run("history", "zerovl@production")
    moves = [line for line in history if line.startswith("move")]
    assert moves == ["move 3 (production now)", "move 2", "move 1"]
    what = [line for line in history if line.startswith("What:")]
    assert [line.removeprefix("What:").strip() for line in what] == [
        "rolled back: version 2 -> version 1",
        "promoted over the gate: version 1 -> version 2",
        "promoted: nothing -> version 1",
    ]
    assert history[1].startswith("Date:")
    assert history[1].endswith(" UTC")
    assert history[3].removeprefix("By:").strip() == f"test-run ({getpass.getuser()}@{platform.node()})"
    assert history[4].startswith("Gate:       passed, min_rsum: 300.00 [292.50, 308.25], bound 33.52")
    assert history[5].endswith("2 files in its sample")
    assert history[6:9] == ["", "    it was worse", ""]
    assert any(
        line.startswith("Gate:       FAILED, max_drop mean: 50.00 [40.00, 60.00], bound 5.00") for line in history
    )


def test_the_commands_as_json(
    workspace: Workspace, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(workspace.root / "registry")

    def run(*arguments: str) -> Any:
        capsys.readouterr()
        assert cli.main(["registry", "--store", store, *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert run("list") == []
    run_stage(settings(), workspace)
    write(b"worse", rsum=250.0)
    run_stage(settings(), workspace)
    told = [(row["version"], row["rsum"], row["of"], row["passed"], row["aliases"]) for row in run("list")]
    assert told == [(2, 250.0, "mean", False, []), (1, 300.0, "mean", True, ["production"])]
    shown = run("show", "zerovl@production")
    first = registry.version("zerovl", 1)
    assert (shown["reference"], shown["aliases"], shown["store"]) == ("zerovl@1", ["production"], store)
    assert shown["metrics"] == first.metrics
    assert shown["files"]["model.safetensors"]["sha256"] == first.files["model.safetensors"].sha256
    (move,) = run("history", "zerovl@production")
    assert (move["number"], move["action"], move["version"], move["by"]) == (1, "promote", 1, "test-run")
    assert cli.main(["registry", "--store", store, "history", "zerovl@staging", "--json"]) == 2


def test_one_source_stands_for_a_release_by_its_name(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(workspace.root / "registry")
    block = {"rsum": 300.0}
    one = {"mean": block, "overall": block, "sources": {"web": block}, "unseen": ["web"]}
    publish(Registry(open_store(store)), {"model.safetensors": b"weights"}, metrics=one)
    assert cli.main(["registry", "--store", store, "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[4:6] == ["300.0", "web"]
    assert cli.main(["registry", "--store", store, "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["of"] == "web"


def test_the_store_is_named_before_the_action_or_behind_it(
    workspace: Workspace, write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_stage(settings(), workspace)
    store, empty = str(workspace.root / "registry"), str(tmp_path / "empty")
    for words in (["list", "--store", store], ["--store", empty, "list", "--store", store], ["--store", store, "list"]):
        capsys.readouterr()
        assert cli.main(["registry", *words]) == 0
        assert capsys.readouterr().out.splitlines()[1].startswith("zerovl  1")
    assert cli.main(["registry", "show", "zerovl@1", "--store", empty]) == 2
    assert f"folder {empty}: there is no zerovl@1" in capsys.readouterr().err


def test_commands_that_fail_say_why(
    workspace: Workspace, write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_stage(settings(), workspace)
    store = str(workspace.root / "registry")

    def run(*arguments: str) -> str:
        assert cli.main(["registry", *arguments]) == 2
        return capsys.readouterr().err

    assert "zerovl has the versions 1" in run("--store", store, "show", "zerovl@2")
    assert "there is no zerovl@staging" in run("--store", store, "history", "zerovl@staging")
    assert "leave one of them out" in run("--store", store, "show", f"{store}/zerovl@1")
    assert "expected NAME@ALIAS" in run("--store", store, "show", "zerovl")
    blob = next((workspace.root / "registry" / "zerovl" / "blobs" / "sha256").iterdir())
    blob.write_bytes(b"flipped")
    assert f"expected sha256 {blob.name}, found" in run("verify", f"{store}/zerovl@1")
    assert f"expected sha256 {blob.name}, found" in run("pull", f"{store}/zerovl@1", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_show_says_that_an_older_verdict_names_no_holder() -> None:
    old = {"passed": True, "reasons": [asdict(Reason("max_drop mean", -3.5, 1.0, True, low=-7.0, high=-1.0))]}
    line = "a holder that this older release does not name; max_drop mean: a gain of 3.50 [1.00, 7.00], bound 1.00"
    assert registry_commands._unnamed_holder(old) == [("Against", line)]
    first = {"passed": True, "reasons": [asdict(Reason("max_drop", None, 1.0, True, "zerovl@production is new"))]}
    assert registry_commands._unnamed_holder(first) == registry_commands._unnamed_holder(None) == []
