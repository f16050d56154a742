"""`zerovl summary` after `git checkout` and `dvc checkout`: no score stands beside a release of another model."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.versioned import make_dvc_project, versioned_environment
from zerovl.commands import summary
from zerovl.files import sha256_file, write_json
from zerovl.registry import release_files
from zerovl.registry.records import Move, now
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.workspace import Workspace

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def write_run(workspace: Workspace, weights: bytes, rsum: float, version: int) -> None:
    """Leave what a run of the pipeline that registers its model leaves, as far as DVC and the summary see it."""
    workspace.model.mkdir(exist_ok=True)
    (workspace.model / release_files.WEIGHTS).write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    scores = {"rsum": rsum, "rsum_low": rsum - 5, "rsum_high": rsum + 5, "rsum_over_untrained": 4.0, "images": 9}
    block = {**scores, "untrained_rsum": 20.0, "chance_rsum": 19.0}
    workspace.evaluation_metrics.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        workspace.evaluation_metrics,
        {"mean": block, "overall": block, "sources": {"web": block}, "model_digest": digest},
    )
    workspace.training_report.mkdir(parents=True, exist_ok=True)
    write_json(workspace.training_run, {})
    files = {release_files.WEIGHTS: digest, release_files.METRICS: sha256_file(workspace.evaluation_metrics)}
    release = {"name": "zerovl", "version": version, "store": "registry", "alias": "production", "promoted": True}
    write_json(workspace.release, {**release, "files": files})
    registry = Registry(FolderStore(workspace.root / "registry"))
    assert registry.append(Move("zerovl", "production", version, "promote", version, now(), "", "", None))


def test_a_checkout_brings_scores_and_not_their_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(tmp_path / "project")
    workspace.root.mkdir()
    environment = versioned_environment(tmp_path)

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=workspace.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"

    def summarised() -> str:
        summary.show(workspace)
        return capsys.readouterr().out

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out for name in ("train", "evaluate", "register") for out in stages[name]["outs"]]
    run("git", "init", "--quiet")
    make_dvc_project(workspace.root)
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": {"cmd": "true", "outs": outs}}}))
    (workspace.root / ".gitignore").write_text("/reports/\n/model/\n")
    for version, (name, rsum) in enumerate({"first": 90.0, "second": 120.0}.items(), 1):
        write_run(workspace, name.encode(), rsum, version)
        run("dvc", "commit", "--quiet", "--force", "all")
        run("git", "add", "--all")
        run("git", "commit", "--quiet", "-m", name)
        run("git", "tag", name)
    assert "  release   zerovl@2, zerovl@production in registry\n" in summarised()

    run("git", "checkout", "--quiet", "first")
    run("dvc", "checkout", "--quiet")
    assert (workspace.model / release_files.WEIGHTS).read_bytes() == b"first"
    said = summarised()
    assert "RSUM      90.0 [85.0, 95.0]" in said
    assert "  release   none of this model; `dvc repro register` registers it\n" in said
    assert "zerovl@production" not in said

    run("git", "checkout", "--quiet", "second")
    run("dvc", "checkout", "--quiet")
    said = summarised()
    assert "RSUM      120.0 [115.0, 125.0]" in said
    assert "  release   zerovl@2, zerovl@production in registry\n" in said

    shutil.rmtree(workspace.root / "registry")
    said = summarised()
    assert "  release   zerovl@2, zerovl@production when it was registered in registry\n" in said
    assert "the store cannot be asked who has it now: " in said
