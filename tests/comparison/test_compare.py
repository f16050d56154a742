"""`zerovl compare` on small real models: releases, folders, runs, git revisions and experiments."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.labelled_sets import write_folder
from tests.support.paths import ROOT
from tests.support.real_world import make_project, settings
from tests.support.trained_releases import FURTHER, LOOSE, release
from tests.support.versioned import versioned_environment
from zerovl import cli, params_file
from zerovl.evaluation.metrics import Score
from zerovl.files import read_json, write_json
from zerovl.params import Params
from zerovl.registry import transfer
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.release.gate import Comparison
from zerovl.release.holder import Holders
from zerovl.workspace import Workspace

ASSETS = ROOT / "tests" / "assets"
Compare = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two releases of runs with other learning rates; the second is what the checkout has."""
    workspace = make_project(tmp_path_factory.mktemp("compare") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROVL_CACHE", str(workspace.root.parent / "cache"))
        patch.setenv("ZEROVL_RUN", "test-run")
        patch.chdir(workspace.root)
        write_folder(workspace.root / "sets")
        release(workspace, 0, 1e-3)
        release(workspace, 1, 3e-3)
    return workspace


@pytest.fixture
def compare(project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Run the command in the project; returns its JSON, and its page under "page"."""
    monkeypatch.setenv("ZEROVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZEROVL_STORE", raising=False)

    def run(*references: str, folder: Path = project.root) -> dict[str, Any]:
        monkeypatch.chdir(folder)
        out, numbers = tmp_path / "out" / "page.html", tmp_path / "numbers.json"
        assert cli.main(["compare", *references, "--out", str(out), "--json", str(numbers)]) == 0
        return {**read_json(numbers), "page": out.read_text()}

    return run


def headline(found: dict[str, Any]) -> dict[str, Any]:
    return next(dict(row) for row in found["scores"] if (row["part"], row["metric"]) == ("mean", "rsum"))


def test_two_releases_are_paired_as_the_gate_pairs_them(
    project: Workspace, compare: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare("zerovl@1", "zerovl@production")
    registry = Registry(FolderStore(project.root / "registry"))
    gate = Holders.of(Params(), project)(registry, registry.version("zerovl", 1))
    (row,) = headline(found)["differences"]
    assert (row["value"], row["low"], row["high"]) == pytest.approx((gate.mean.value, gate.mean.low, gate.mean.high))
    for source, its in gate.sources.items():
        (change,) = next(row["differences"] for row in found["scores"] if row["part"] == source)
        assert (change["value"], change["low"]) == pytest.approx((its.value, its.low))
    assert found["parameters"] == {"train.lr": ["0.001", "0.003"]}
    assert found["unpaired"] == {}
    said = capsys.readouterr().out
    assert re.search(r"^RSUM +\d+\.\d\d +\d+\.\d\d +[+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\]", said, re.MULTILINE)
    assert re.search(r"^train.lr +0.001 +0.003$", said, re.MULTILINE)
    assert max(map(len, said.splitlines()[:-1])) <= 100


def row_of(found: dict[str, Any], part: str, metric: str) -> dict[str, Any]:
    return next(dict(row) for row in found["scores"] if (row["part"], row["metric"]) == (part, metric))


def test_classification_probe_folds_and_pool_are_paired(project: Workspace, compare: Compare) -> None:
    found = compare("zerovl@1", "zerovl@2")
    zero_shot = ("colours.top1", "colours.top5", "colours.mean_class")
    folds = [f"folds.{name}" for name in ("rsum", "i2t_r1", "t2i_r10")]
    names = [("mean", name) for name in (*zero_shot, "colours.probe_top1", *folds)]
    for part, metric in (*names, ("alpha", "folds.rsum"), ("beta", "folds.rsum"), ("pool", "rsum")):
        row = row_of(found, part, metric)
        (change,), values = row["differences"], row["values"]
        assert change["value"] == pytest.approx(values[1] - values[0], abs=2e-4)  # of rounded numbers
        assert change["low"] <= change["value"] <= change["high"]
        assert change["lacking"] == ""
    for name in ("colours.chance_top1", "colours.pictures", "folds.untrained_rsum", "folds.folds"):
        (change,) = row_of(found, "mean", name)["differences"]
        assert (change["low"], change["lacking"]) == (None, "")
    registry = Registry(FolderStore(project.root / "registry"))
    names = {"colours.top1": 600.0, "folds.rsum@beta": 600.0, "retrieval.rsum@pool": 600.0}
    gate = params_file.load(project.root / "params.yaml").register_.gate.model_copy(update={"max_drops": names})
    section = Params().register_.model_copy(update={"gate": gate})
    params = settings(project.root).model_copy(update={"register_": section, "evaluate": Params().evaluate})
    by_gate = Holders.of(params, project)(registry, registry.version("zerovl", 1))
    assert isinstance(by_gate, Comparison)
    for name, (part, metric) in zip(
        names, (("mean", "colours.top1"), ("beta", "folds.rsum"), ("pool", "rsum")), strict=True
    ):
        (change,) = row_of(found, part, metric)["differences"]
        its = by_gate.named[name]
        assert isinstance(its, Score)
        assert (its.value, its.low, its.high) == pytest.approx((change["value"], change["low"], change["high"]))


def test_a_release_of_before_items_were_kept_says_what_it_lacks(
    project: Workspace, compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`release_before_items` has the files of a release as they were written then; its weights are another's."""
    old = tmp_path / "old"
    shutil.copytree(ASSETS / "release_before_items", old)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ASSETS / "bundle_zerovl_1" / name, old / name)
    found = compare("zerovl@2", str(old))
    for metric in ("colours.top1", "colours.probe_top1", "folds.rsum"):
        (change,) = row_of(found, "mean", metric)["differences"]
        assert isinstance(change["value"], float)
        assert (change["low"], change["lacking"]) == (None, f"made before figures by item were kept: {old}")
    assert f"\nB - A, colours: no interval: made before figures by item were kept: {old}\n" in capsys.readouterr().out
    assert f"made before figures by item were kept: {old}</li>" in found["page"]
    shutil.copytree(old, tmp_path / "again")  # two of them have their queries to pair, and their pool
    found = compare(str(old), str(tmp_path / "again"))
    assert found["unpaired"] == {}
    for part in ("mean", "pool", "alpha"):
        assert row_of(found, part, "rsum")["differences"] == [{"value": 0.0, "low": 0.0, "high": 0.0, "lacking": ""}]


def test_another_set_is_unpaired_and_equal_sets_are_paired_on_other_validation_data(
    project: Workspace, compare: Compare, tmp_path: Path
) -> None:
    other = Workspace(tmp_path / "other")
    shutil.copytree(project.root / "reports", other.root / "reports")
    write_json(other.evaluation_metrics, {**read_json(other.evaluation_metrics), "evaluation_digest": "other"})
    found = compare("zerovl@1", str(other.root))
    (change,) = row_of(found, "mean", "colours.top1")["differences"]
    assert change["low"] is not None
    (change,) = row_of(found, "mean", "folds.rsum")["differences"]
    assert (change["low"], change["lacking"]) == (None, "they were evaluated on other data")
    details = read_json(other.evaluation_details)
    details["colours"]["templates"] = ["a {}"]
    write_json(other.evaluation_details, details)
    (change,) = row_of(compare("zerovl@1", str(other.root)), "mean", "colours.top1")["differences"]
    assert (change["low"], change["lacking"]) == (None, "the set has other pictures, classes or templates")


def test_recalls_are_paired_too(compare: Compare) -> None:
    rows = {row["metric"]: row for row in compare("zerovl@1", "zerovl@2")["scores"] if row["part"] == "mean"}
    recalls = [rows[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    changes = [row["differences"][0] for row in recalls]
    assert sum(its["value"] for its in changes) == pytest.approx(rows["rsum"]["differences"][0]["value"])
    for row, its in zip(recalls, changes, strict=True):
        assert its["value"] == pytest.approx(row["values"][1] - row["values"][0], abs=2e-4)  # of rounded numbers
        assert its["low"] <= its["value"] <= its["high"]


def test_the_page_has_it_all_and_needs_nothing_else(project: Workspace, compare: Compare, tmp_path: Path) -> None:
    plots = project.root / "dvc_plots" / "index.html"
    plots.parent.mkdir()
    plots.touch()
    page = compare("zerovl@1", "zerovl@2")["page"]
    shutil.rmtree(plots.parent)
    (leads,) = re.findall(r'<a href="(.*?)">', page)
    assert (tmp_path / "out" / leads).resolve() == plots.resolve()
    page = page.replace(f'href="{leads}"', "")
    for head in ("Difference in RSUM", "Scores", "Parameters that differ", "Learning", "Where they disagree most"):
        assert f"<h2>{head}</h2>" in page
    assert page.count('class="query pair"') > 0
    assert page.count("data:image/") == page.count("<img ")
    assert page.count('<path class="s0"') == page.count('<path class="s1"') == 2  # a curve each in both charts
    assert page.count('<path class="chance"') == 1  # both trainings were scored on the same sample
    assert "of a sample; dashed: chance" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)|url\(|<script|@import", page)
    assert "default-src 'none'" in page


def test_what_holds_the_same_model_compares_equal(project: Workspace, compare: Compare, tmp_path: Path) -> None:
    registry = Registry(FolderStore(project.root / "registry"))
    transfer.pull(registry.store, registry.version("zerovl", 2), tmp_path / "pulled")
    others = ["model", str(project.root), "runs/run1", str(tmp_path / "pulled"), f"{project.root}/registry/zerovl@2"]
    found = compare("zerovl@2", *others)
    assert found["unpaired"] == {}
    assert [its["value"] for its in headline(found)["differences"]] == [0.0] * len(others)
    assert found["parameters"] == {}


def test_a_run_that_is_not_the_last_has_parameters_and_curves_alone(compare: Compare) -> None:
    found = compare("runs/run1", "runs/run0")
    assert found["unpaired"] == {"runs/run0": "runs/run0 has no scores"}
    assert headline(found)["values"][1] is None
    assert found["parameters"] == {"train.lr": ["0.003", "0.001"]}
    assert '<path class="s1"' in found["page"]


def test_other_data_is_said_to_be_unpaired(
    project: Workspace, compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Workspace(tmp_path / "other")
    shutil.copytree(project.root / "reports", other.root / "reports")
    write_json(other.evaluation_metrics, {**read_json(other.evaluation_metrics), "evaluation_digest": "other"})
    found = compare("zerovl@1", str(other.root))
    assert found["unpaired"] == {str(other.root): "they were evaluated on other data"}
    (change,) = headline(found)["differences"]
    assert change["low"] is None
    assert "B against A is unpaired: they were evaluated on other data" in capsys.readouterr().out
    assert "unpaired: they were evaluated on other data" in found["page"]
    assert "Where they disagree most" not in found["page"]


def test_without_the_data_the_samples_are_shown(project: Workspace, compare: Compare, tmp_path: Path) -> None:
    store = f"{project.root}/registry"
    found = compare(f"{store}/zerovl@1", f"{store}/zerovl@2", folder=tmp_path)
    assert "of the 6 validation pairs that the releases carry" in found["page"]
    assert "<h2>Learning</h2>" not in found["page"]  # a release has no log, and its run is not here


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_revisions_and_experiments(project: Workspace, compare: Compare, tmp_path: Path) -> None:
    """Of a commit and an experiment nothing is checked out; an old one keeps what it had."""
    root = tmp_path / "versioned"
    root.mkdir()
    environment = versioned_environment(tmp_path)

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    ours = {"all": {"cmd": "true", "outs": [*stages["evaluate"]["outs"], "reports/training"]}}
    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": ours}))
    (root / ".gitignore").write_text("/reports/\n")
    shutil.copy(project.root / "params.yaml", root / "params.yaml")
    for name in ("evaluation", "training"):
        shutil.copytree(project.root / "reports" / name, root / "reports" / name)
    run("dvc", "commit", "--quiet", "--force")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "-m", "first")
    metrics = read_json(root / "reports/evaluation/metrics.json")
    write_json(root / "reports/evaluation/metrics.json", {**metrics, "mean": {**metrics["mean"], "rsum": 1.0}})
    params_file.write(settings(project.root, *LOOSE, *FURTHER, "train.lr=0.01"), root / "params.yaml")
    run("dvc", "commit", "--quiet", "--force")
    run("dvc", "exp", "save", "--name", "other-lr")
    shutil.rmtree(root / "reports")
    found = compare("HEAD", "other-lr", f"{project.root}/registry/zerovl@2", folder=root)
    assert found["parameters"] == {"train.lr": ["0.003", "0.01", "0.003"]}
    assert headline(found)["values"][1] == 1.0
    assert headline(found)["values"][0] == pytest.approx(metrics["mean"]["rsum"])
    assert found["unpaired"] == {}
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0, "lacking": ""}
    assert row_of(found, "mean", "colours.top1")["differences"] == [nothing, nothing]
    assert '<path class="s0"' in found["page"]


@pytest.mark.parametrize(
    ("references", "words"),
    [
        (("zerovl@1",), "1 given; name two to 6"),
        (("zerovl@1", "zerovl@1"), "zerovl@1: given twice"),
        (("zerovl@1", "zerovl@7"), "there is no zerovl@7; zerovl has the versions 1, 2"),
        (("zerovl@1", "data"), "data: neither a model"),
        (("zerovl@1", "no-such-thing"), "no-such-thing"),
    ],
)
def test_a_name_of_nothing_says_what_there_is(
    project: Workspace,
    references: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project.root)
    assert cli.main(["compare", *references]) == 2
    assert words in capsys.readouterr().err
