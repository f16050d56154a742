"""Which release gets the alias: the gate's verdict, what is checked before it moves, and who was faster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.register_stage import Write, released, run_stage, settings
from zerovl.errors import ZeroVLError
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.release import promote as promoting
from zerovl.release import publish
from zerovl.release.gate import LostHolder
from zerovl.workspace import Workspace

pytestmark = pytest.mark.usefixtures("registry_environment")


def test_sources_that_no_rule_looked_at_are_named(
    workspace: Workspace, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace.validation_verdict
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sources_without": {"valid": ["posters"]}}))
    run_stage(settings(), workspace)
    assert "without a valid split, so no rule of the gate looked at them: posters\n" in capsys.readouterr().out


def test_a_worse_candidate_is_kept_but_not_promoted(
    workspace: Workspace, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(settings(), workspace)
    write(b"worse", rsum=250.0)
    capsys.readouterr()
    run_stage(settings(), workspace)
    assert registry.numbers("zerovl") == [1, 2]
    assert registry.resolve("zerovl@production").number == 1
    record = released(workspace)
    assert (record["version"], record["promoted"], record["verdict"]["passed"]) == (2, False, False)
    printed = capsys.readouterr().out
    assert "gate FAILED; zerovl@production stays as it is" in printed
    assert "FAILED   max_drop mean: 50.00 [40.00, 60.00], bound 5.00" in printed
    assert 'zerovl.load("registry/zerovl@2")' in printed
    assert registry.resolve("zerovl@2").verdict == record["verdict"]


def test_a_candidate_worse_beyond_its_interval_is_not_promoted(
    workspace: Workspace, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(settings(), workspace)
    write(b"worse", rsum=289.0)
    run_stage(settings(gate={"max_drop": 600.0}), workspace)
    assert registry.resolve("zerovl@production").number == 1
    assert "FAILED   difference: -11.00 [-21.00, -1.00], bound 0.00 (not_worse)" in capsys.readouterr().out
    run_stage(settings(gate={"max_drop": 600.0, "difference": "none"}), workspace)
    assert registry.resolve("zerovl@production").number == 2


def test_better_means_better_than_chance(
    workspace: Workspace, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    better = settings(gate={"difference": "better"})
    run_stage(better, workspace)
    write(b"maybe", rsum=309.0)
    run_stage(better, workspace)
    assert registry.resolve("zerovl@production").number == 1
    write(b"surely", rsum=311.0)
    run_stage(better, workspace)
    version = registry.resolve("zerovl@production")
    assert version.number == 3
    move = registry.current("zerovl", "production")
    assert move is not None
    assert move.verdict == version.verdict == released(workspace)["verdict"]
    told = [reason for reason in released(workspace)["verdict"]["reasons"] if reason["rule"] == "difference"]
    assert [(reason["low"], reason["high"]) for reason in told] == [(1.0, 21.0)]
    # The holder itself is not asked to be better than itself.
    capsys.readouterr()
    run_stage(better, workspace)
    assert "gate passed; zerovl@production is version 3 (move 2)" in capsys.readouterr().out


def test_a_holder_that_cannot_be_measured_keeps_the_alias(
    workspace: Workspace, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(settings(), workspace)
    write(b"better", rsum=400.0)
    run_stage(settings(), workspace, compare=lambda registry, holder: LostHolder(f"{holder.reference} is gone"))
    assert registry.resolve("zerovl@production").number == 1
    assert "FAILED   max_drop (zerovl@1 is gone)" in capsys.readouterr().out


def test_a_check_that_fails_registers_but_does_not_promote(
    workspace: Workspace, write: Write, registry: Registry
) -> None:
    def refuse(folder: Path) -> str:
        raise ZeroVLError("the cosine of picture a-1 is 0.1")

    with pytest.raises(ZeroVLError, match=r"zerovl@1 stays without the alias: the cosine of picture a-1"):
        run_stage(settings(), workspace, check=refuse)
    assert registry.numbers("zerovl") == [1]
    assert registry.current("zerovl", "production") is None
    assert not workspace.release.exists()


def test_without_an_alias_nothing_moves(workspace: Workspace, write: Write, registry: Registry) -> None:
    run_stage(settings(alias=""), workspace)
    assert registry.aliases("zerovl") == {}
    assert released(workspace)["promoted"] is False


def test_a_holder_that_changes_meanwhile_is_judged_against(
    workspace: Workspace, write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(settings(), workspace)
    promote = promoting.promote

    def overtaken(registry: Registry, *arguments: Any, **named: Any) -> Any:
        """Someone else promotes a far better model between our judgement and our promotion."""
        monkeypatch.setattr(publish, "promote", promote)
        better = registry.publish(
            "zerovl",
            {"model.safetensors": b"better", "config.json": b"{}"},
            metrics={"mean": {"rsum": 500.0}, "evaluation_digest": "data-1"},
            provenance={},
            by="",
        )
        promote(registry, better, "production", why="", by="", after=1)
        return promote(registry, *arguments, **named)

    monkeypatch.setattr(publish, "promote", overtaken)
    write(b"second", rsum=301.0)
    run_stage(settings(), workspace)
    assert released(workspace)["promoted"] is False
    assert registry.resolve("zerovl@production").metrics["mean"]["rsum"] == 500.0


def test_promotion_reads_the_release_back(
    workspace: Workspace, write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = FolderStore.create

    def damaging(self: FolderStore, key: str, source: Path | bytes) -> bool:
        flipped = b"flipped" if "blobs" in key and not isinstance(source, bytes) else source
        return create(self, key, flipped)

    monkeypatch.setattr(FolderStore, "create", damaging)
    with pytest.raises(ZeroVLError, match="is damaged: expected sha256"):
        run_stage(settings(), workspace)
    assert registry.current("zerovl", "production") is None
    assert not workspace.release.exists()
