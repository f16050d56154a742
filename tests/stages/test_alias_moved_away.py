"""An alias that was moved away from a model is given back by a person, and by no registration of the same model."""

from __future__ import annotations

import json

import pytest

from tests.support.register_stage import Write, checked, released, run_stage, settings
from tests.support.registries import publish
from zerovl.commands import summary
from zerovl.registry import retention
from zerovl.registry.registry import Registry
from zerovl.release import promote as promoting
from zerovl.workspace import Workspace

pytestmark = pytest.mark.usefixtures("registry_environment")


@pytest.fixture
def rolled_back(workspace: Workspace, write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 had the alias and lost it to version 1; the workspace has the model of version 2."""
    monkeypatch.setattr(promoting, "check_release", checked)
    run_stage(settings(), workspace)
    write(b"second", rsum=310.0)
    run_stage(settings(), workspace)
    assert registry.resolve("zerovl@production").number == 2
    promoting.rollback(registry, "zerovl", "production", why="regression in search", by="Ada")


@pytest.mark.usefixtures("rolled_back")
def test_a_rollback_outlives_a_registration_of_the_same_model(
    workspace: Workspace, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    run_stage(settings(), workspace)
    assert registry.resolve("zerovl@production").number == 1
    assert len(registry.history("zerovl", "production")) == 3
    printed, record = capsys.readouterr().out, released(workspace)
    assert (record["version"], record["promoted"], record["verdict"]["passed"]) == (2, False, True)
    assert f"gate passed, but {record['moved_away']}\n" in printed
    assert "zerovl@production stays with zerovl@1: this model had it until a rollback to version 1" in printed
    assert 'by Ada, "regression in search")' in printed
    assert "`zerovl registry promote zerovl@2 production --why TEXT` does\n" in printed
    assert 'zerovl.load("registry/zerovl@2")' in printed
    # What is really new is promoted, and what a person gave it back to has it again.
    write(b"third", rsum=312.0)
    run_stage(settings(), workspace)
    assert registry.resolve("zerovl@production").number == 3
    assert released(workspace)["moved_away"] == ""
    second = registry.version("zerovl", 2)
    assert promoting.promote(registry, second, "production", why="it was not the model", by="Ada", after=4)
    write(b"second", rsum=310.0)
    run_stage(settings(), workspace)
    assert released(workspace)["promoted"] is True
    assert len(registry.history("zerovl", "production")) == 5


@pytest.mark.usefixtures("rolled_back")
def test_the_summary_says_who_has_the_alias_now(workspace: Workspace, registry: Registry) -> None:
    metrics, record = json.loads(workspace.evaluation_metrics.read_text()), released(workspace)
    metrics["model_digest"] = record["files"]["model.safetensors"]

    def said() -> list[str]:
        return list(summary._release_lines(record, metrics, workspace))

    assert record["promoted"] is True  # as it was when the stage ran
    assert said()[0] == "  release   zerovl@2 in registry"
    assert "zerovl@production stays with zerovl@1: this model had it until a rollback to version 1" in said()[1]
    second = registry.version("zerovl", 2)
    assert promoting.promote(registry, second, "production", why="it was not the model", by="Ada", after=3)
    assert said()[0] == "  release   zerovl@2, zerovl@production in registry"
    assert "stays with" not in said()[1]
    third = publish(registry, {"model.safetensors": b"third"})  # never had it
    record |= {"version": third.number, "verdict": {**record["verdict"], "passed": False}}
    assert said()[:2] == ["  release   zerovl@3 in registry", "            the gate refused it zerovl@production"]


@pytest.mark.usefixtures("rolled_back")
def test_a_model_that_was_retired_after_its_rollback_does_not_come_back_under_another_number(
    workspace: Workspace, registry: Registry
) -> None:
    retention.retire(registry, registry.version("zerovl", 2), "trained on the wrong captions", "Ada")
    run_stage(settings(), workspace)
    record = released(workspace)
    assert (record["version"], record["promoted"]) == (3, False)
    assert "`zerovl registry promote zerovl@3 production --why TEXT`" in record["moved_away"]
    assert registry.resolve("zerovl@production").number == 1


def test_a_move_by_hand_outlives_a_registration_too(
    workspace: Workspace, write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promoting, "check_release", checked)
    run_stage(settings(), workspace)
    write(b"second", rsum=310.0)
    run_stage(settings(alias=""), workspace)
    second = registry.version("zerovl", 2)
    assert promoting.promote(registry, second, "production", why="", by="Ada", after=1)
    write()
    run_stage(settings(gate={"max_drop": 600.0}), workspace)
    assert registry.resolve("zerovl@production").number == 2
    said = "this model had it until a promotion to version 2 (move 2, "
    assert said in released(workspace)["moved_away"]
    assert "by Ada), and registering" in released(workspace)["moved_away"]
