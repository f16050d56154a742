"""The gate with real evaluations and a real registry: paired on equal data, scored again on other data."""

from __future__ import annotations

import json
import shutil
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import forked_helpers
from tests.support.fork_server import Forked
from tests.support.judged_releases import compare, evaluate, registry_of, released, rsum
from tests.support.real_world import make_project, settings
from zerovl import cli, cores, own_gpus, params_file
from zerovl.distributed import helper_processes
from zerovl.errors import ZeroVLError
from zerovl.registry.records import Move, now
from zerovl.registry.stores.folder import FolderStore
from zerovl.release import holder
from zerovl.release.gate import Comparison, LostHolder
from zerovl.release.holder import Holders
from zerovl.workspace import Workspace

SOURCES = ("alpha", "beta")


def test_on_equal_data_the_kept_ranks_are_compared(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = released(workspace)
    assert (first["promoted"], "sample/pairs.tar" in first["files"]) == (True, True)
    before = rsum(workspace)
    evaluate(workspace, seed=1)
    monkeypatch.setattr(holder.Job, "rank", lambda *_: pytest.fail("the holder was scored again"))
    found = compare(workspace)
    assert isinstance(found, Comparison)
    assert found.mean.value == pytest.approx(rsum(workspace) - before, abs=1e-3)
    assert found.mean.low < found.mean.value < found.mean.high
    assert (found.note, list(found.sources)) == ("", ["alpha", "beta"])
    assert np.mean([its.value for its in found.sources.values()]) == pytest.approx(found.mean.value)


def test_scoring_the_holder_again_gives_what_its_own_evaluation_gave(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased: list[tuple[int, str]] = []
    monkeypatch.setattr(own_gpus, "count_up_to", lambda asked: 7)
    monkeypatch.setattr(own_gpus, "take", lambda gpus, command, _minutes: leased.append((gpus, command)))
    released(workspace)
    evaluate(workspace, seed=1)
    paired = compare(workspace)
    assert leased == []  # nothing was scored
    registry = registry_of(workspace)
    holder = registry.version("zerovl", 1)
    older = replace(holder, files={name: info for name, info in holder.files.items() if name != "queries.parquet"})
    again = Holders.of(settings(workspace.root), workspace)(registry, older)
    assert leased == [(7, "register")]
    assert isinstance(paired, Comparison)
    assert isinstance(again, Comparison)
    assert again.note == "holder zerovl@1 re-scored: zerovl@1 was released without its ranks by query"
    for ours, theirs in ((again.mean, paired.mean), *((again.sources[name], paired.sources[name]) for name in SOURCES)):
        assert astuple(ours) == pytest.approx(astuple(theirs), abs=1e-9)

    started: list[Forked] = []

    def start(*job: Any) -> Forked:
        started.append(forked_helpers.start(*job))
        return started[-1]

    monkeypatch.setattr(helper_processes, "start", start)
    monkeypatch.setattr(cores, "core_count", lambda: 2)  # no more ranks than cores
    shared = Holders.of(settings(workspace.root, "machine.ranks=2"), workspace)(registry, older)
    assert [its.poll() for its in started] == [0]  # one helper, which did its share
    assert shared == again


def test_on_other_data_the_holder_is_scored_again_and_the_verdict_says_so(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released(workspace)
    other = make_project(tmp_path / "other", first_id=1000)
    shutil.copytree(workspace.root / "registry", other.root / "registry")
    evaluate(other, seed=0)  # the same seed, but another tokenizer and other pictures
    found = compare(other)
    assert isinstance(found, Comparison)
    assert found.note == "holder zerovl@1 re-scored: its evaluation was of other data"
    record = released(other)
    notes = [reason["note"] for reason in record["verdict"]["reasons"] if reason["rule"] == "max_drop mean"]
    assert [note.partition(";")[0] for note in notes] == [found.note]
    assert found.note in capsys.readouterr().out
    assert registry_of(other).version("zerovl", 2).verdict == record["verdict"]
    assert (
        "not compared: its evaluation was of other data; the gate scores it again" in other.evaluation_page.read_text()
    )


def test_a_holder_that_cannot_be_loaded_is_a_reason_and_no_crash(workspace: Workspace) -> None:
    released(workspace)
    registry = registry_of(workspace)
    files = {"model.safetensors": b"of years ago", "config.json": b"{}"}
    old = registry.publish("zerovl", files, metrics={"overall": {"rsum": 1.0}}, provenance={}, by="")
    assert registry.append(Move("zerovl", "production", 2, "promote", old.number, now(), "", "", None))
    evaluate(workspace, seed=1)
    record = released(workspace)
    assert record["promoted"] is False
    failed = [reason for reason in record["verdict"]["reasons"] if not reason["passed"]]
    assert [reason["rule"] for reason in failed] == ["max_drop"]
    assert failed[0]["note"].startswith(
        "holder zerovl@2 had to be scored again (it is not known what data they were evaluated on), but"
    )
    assert registry.resolve("zerovl@production").number == 2


def test_a_damaged_blob_of_the_holder_is_a_reason_too(workspace: Workspace) -> None:
    released(workspace)
    registry = registry_of(workspace)
    holder = registry.resolve("zerovl@production")
    shutil.rmtree(workspace.root.parent / "cache")
    for name in ("queries.parquet", "model.safetensors"):
        blob = workspace.root / "registry" / "zerovl" / "blobs" / "sha256" / holder.files[name].sha256
        blob.write_bytes(b"flipped")
    evaluate(workspace, seed=1)
    found = compare(workspace)
    assert isinstance(found, LostHolder)
    assert "queries.parquet of zerovl@1 is damaged" in found.why
    assert "model.safetensors of zerovl@1 is damaged" in found.why


@pytest.mark.parametrize("same_data", [True, False])
def test_a_store_that_fails_for_now_is_no_verdict(
    workspace: Workspace, same_data: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(workspace)
    shutil.rmtree(workspace.root.parent / "cache")
    if not same_data:
        metrics = workspace.evaluation_report / "metrics.json"
        metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "evaluation_digest": "other"}))

    def down(*_: object) -> None:
        raise ZeroVLError("s3://models: no answer")

    monkeypatch.setattr(FolderStore, "download", down)
    with pytest.raises(ZeroVLError, match="no answer"):
        compare(workspace)


def test_alias_moves_by_command_score_the_sample(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    released(workspace)
    evaluate(workspace, seed=1)
    bounds = ["register.gate.min_rsum=0", "register.gate.max_drop=600", "register.gate.difference=none"]
    params_file.write(settings(workspace.root, *bounds), workspace.root / "params.yaml")
    monkeypatch.chdir(workspace.root)
    capsys.readouterr()
    assert cli.main(["register"]) == 0
    printed = capsys.readouterr().out
    assert "gate passed; zerovl@production is version 2 (move 2)" in printed
    assert "  6 sample pairs embedded again: cosines within" in printed
    assert cli.main(["registry", "promote", "zerovl@2", "staging"]) == 0
    printed = capsys.readouterr().out
    assert "zerovl@staging: none -> version 2 (every byte in the store compared)" in printed
    assert "6 sample pairs embedded again: cosines within" in printed
    assert cli.main(["registry", "promote", "zerovl@1", "staging"]) == 0
    assert cli.main(["registry", "rollback", "zerovl@staging", "--why", "slow"]) == 0
    assert capsys.readouterr().out.count("6 sample pairs embedded again") == 2
    assert cli.main(["registry", "history", "zerovl@staging"]) == 0
    history = capsys.readouterr().out
    assert history.count("Check:      6 sample pairs embedded again") == 3
    assert "What:       rolled back: version 1 -> version 2" in history
