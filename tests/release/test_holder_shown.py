"""What people are told of the alias's holder, by report, gate, summary and registry: its score, and the difference."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import astuple, replace

import pytest

from tests.support.judged_releases import compare, evaluate, registry_of, released, rsum
from zerovl import cli
from zerovl.commands import registry as registry_commands
from zerovl.commands import summary
from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import Holder
from zerovl.evaluation.metrics import Interval
from zerovl.registry.stores.folder import FolderStore
from zerovl.release.gate import Comparison
from zerovl.release.kept_ranks import released_difference
from zerovl.workspace import Workspace


def test_report_gate_summary_and_registry_name_the_holder(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "holder" not in released(workspace)["verdict"]
    assert "zerovl@production was" not in workspace.evaluation_page.read_text()
    before = rsum(workspace)
    evaluate(workspace, seed=1)
    found = compare(workspace)
    assert isinstance(found, Comparison)
    its = found.mean
    named = f"zerovl@1, RSUM {before:.2f}; this one {its.value:+.2f} [{its.low:+.2f}, {its.high:+.2f}]"
    assert f"zerovl@production was {named}" in workspace.evaluation_page.read_text()
    capsys.readouterr()
    record = released(workspace)
    assert f"  zerovl@production was {named}\n" in capsys.readouterr().out
    assert record["verdict"]["holder"]["score"] == pytest.approx(before, abs=1e-3)
    summary.show(workspace)
    assert f"  holder    zerovl@production was {named}\n" in capsys.readouterr().out
    monkeypatch.chdir(workspace.root)
    store = ("registry", "--store", "registry")
    assert cli.main([*store, "show", "zerovl@2"]) == 0
    shown = capsys.readouterr().out
    assert f"Against:    zerovl@production was {named}\n" in shown
    assert "Holder:" not in shown  # it is this version
    assert cli.main([*store, "show", "zerovl@1"]) == 0
    shown = capsys.readouterr().out
    held = f"Holder:     production is zerovl@2, RSUM {rsum(workspace):.2f}; this one {-its.value:+.2f} "
    assert re.search(re.escape(held) + r"\[[-+.\d]+, [-+.\d]+\]\n", shown)
    assert "Against:" not in shown  # the first of its name
    evaluate(workspace, seed=1)
    assert "not compared: it is this model" in workspace.evaluation_page.read_text()


def test_show_tells_the_difference_to_a_holder_that_the_gate_did_not_see_or_why_there_is_none(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    released(workspace)
    metrics = workspace.evaluation_metrics
    evaluate(workspace, seed=1)
    found = compare(workspace)
    assert isinstance(found, Comparison)
    registry = registry_of(workspace)
    released(workspace)
    first, second = (registry.version("zerovl", number) for number in (1, 2))
    again = released_difference(registry, second, first)
    assert isinstance(again, Interval)
    assert astuple(again) == pytest.approx(astuple(found.mean))  # drawn as the gate did, by the release's parameters
    pools = [replace(each, metrics={k: v for k, v in each.metrics.items() if k != "mean"}) for each in (first, second)]
    by_mean, by_pool = (Holder.released("zerovl@2", "production", each.metrics) for each in (second, pools[1]))
    shown = registry_commands._compared(registry, pools[0], second, by_mean)  # the holder's score is its own
    assert shown.startswith(f"zerovl@2, RSUM {by_mean.score:.2f}; this one {-again.value:+.2f} [")
    shown = registry_commands._compared(registry, *pools, by_pool)
    of_pools = [each.metrics["overall"]["rsum"] for each in (first, second)]
    said = re.escape(f"zerovl@2, RSUM {of_pools[1]:.2f} (pool); this one {of_pools[0] - of_pools[1]:+.2f} [")
    assert re.fullmatch(said + r"[-+.\d]+, [-+.\d]+\]", shown)
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "evaluation_digest": "other"}))
    assert released(workspace)["version"] == 3
    monkeypatch.chdir(workspace.root)
    capsys.readouterr()
    assert cli.main(["registry", "--store", "registry", "show", "zerovl@1"]) == 0
    said = "not compared: its evaluation was of other data; `zerovl compare zerovl@3 zerovl@1` has more\n"
    assert said in capsys.readouterr().out
    without = replace(first, files={name: info for name, info in first.files.items() if name != "queries.parquet"})
    assert released_difference(registry, second, without) == "zerovl@1 was released without its ranks by query"
    blob = workspace.root / "registry" / "zerovl" / "blobs" / "sha256" / first.files["queries.parquet"].sha256
    blob.write_bytes(b"flipped")
    assert "queries.parquet of zerovl@1 is damaged" in str(released_difference(registry, second, first))


def test_a_report_is_written_where_the_store_cannot_be_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(workspace)

    def down(*_: object) -> None:
        raise ZeroVLError("s3://models: no answer")

    monkeypatch.setattr(FolderStore, "read", down)
    evaluate(workspace, seed=1)
    assert "zerovl@production was" not in workspace.evaluation_page.read_text()


def test_a_summary_joins_no_score_with_the_release_of_another_model(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    released(workspace)
    kept = workspace.root.parent / "kept"
    shutil.copytree(workspace.evaluation_report, kept)
    evaluate(workspace, seed=1)  # as a checkout of another commit brings it
    capsys.readouterr()
    summary.show(workspace)
    said = capsys.readouterr().out
    assert "release   none of this model; `dvc repro register` registers it" in said
    assert "zerovl@production" not in said
    shutil.rmtree(workspace.evaluation_report)
    shutil.copytree(kept, workspace.evaluation_report)
    summary.show(workspace)
    assert "  release   zerovl@1, zerovl@production in registry\n" in capsys.readouterr().out
    scores = json.loads(workspace.evaluation_metrics.read_text())
    workspace.evaluation_metrics.write_text(json.dumps({**scores, "evaluation_digest": "other"}))
    summary.show(workspace)
    assert "zerovl@1 has other scores of this model" in capsys.readouterr().out
