"""A clone that fetches everything and reproduces it registers nothing new, and says what it does not know."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from zerovl import params_file
from zerovl.params import Params
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.stages import register
from zerovl.workspace import Workspace

# DVC once for all of its commands: its import takes longer than they do.
SCRIPT = """
import os, subprocess
from dvc.cli import main

def dvc(*words):
    assert main([*words]) == 0, words

def git(*words):
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *words], check=True)

git("init", "--quiet")
dvc("init", "--quiet")
dvc("remote", "add", "--quiet", "--default", "here", "../remote")
dvc("commit", "--quiet", "--force", "made")
dvc("push", "--quiet")
git("add", "--all")
git("commit", "--quiet", "-m", "all")
git("clone", "--quiet", ".", "../clone")
os.chdir("../clone")
assert not os.path.exists("model") and not os.path.exists("reports/release.json")
dvc("pull", "--quiet", "made")
dvc("repro", "register")
"""


def make_project(project: Path, store: str) -> Params:
    """What the stages before leave, as one stage, and the real stage `register`; returns its parameters."""
    contents = {
        "model/model.safetensors": "weights",
        "model/config.json": "{}",
        "reports/evaluation/metrics.json": json.dumps({"mean": {"rsum": 1.0}, "overall": {"rsum": 1.0}, "sources": {}}),
        "reports/evaluation/queries.parquet": "ranks",
        "reports/evaluation/sample/pairs.tar": "pairs",
        "reports/evaluation/sample/embeddings.safetensors": "embeddings",
        "reports/validation/verdict.json": '{"passed": true, "manifest_digest": "d"}',
        "data/manifest/manifest.json": '{"digest": "d", "sources": {}}',
        "reports/code/register.json": "{}",
    }
    for name, content in contents.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = ["model", "reports/evaluation", "reports/validation", "data/manifest", "reports/code"]
    stage = {**stages["register"], "cmd": f"{sys.executable} -m zerovl.cli register"}
    (project / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"made": {"cmd": "true", "outs": outs}, "register": stage}})
    )
    # Without an alias nothing is loaded, so that the files need not be a model.
    overrides = [f"register.store={store}", "register.alias=''", "register.gate.min_rsum=0"]
    params = params_file.from_recipe({}, overrides, "test")
    params_file.write(params, project / "params.yaml")
    (project / ".gitignore").write_text("/registry\n/reports/release.json\n")
    return params


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_clone_that_pulls_everything_registers_nothing_new_in_a_shared_store(tmp_path: Path) -> None:
    project = tmp_path / "project"
    register.run(make_project(project, "../shared"), Workspace(project))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": str(tmp_path / "no-config"),
        "DVC_NO_ANALYTICS": "1",
    }
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this model is zerovl@1 in ../shared already, registered 20" in done.stdout
    assert Registry(FolderStore(tmp_path / "shared")).numbers("zerovl") == [1]
    released = [tmp_path / name / "reports" / "release.json" for name in ("project", "clone")]
    assert released[0].read_text() == released[1].read_text()


def test_a_store_that_knows_nothing_is_told_before_anything_is_registered(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("zerovl"), "propagate", True)  # a command may have set up the log before
    caplog.set_level("INFO")
    params = make_project(tmp_path, "registry")
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(register, "assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            register.run(params, Workspace(tmp_path))
    assert f"folder {tmp_path / 'registry'} has no zerovl yet, so this model is compared with none" in caplog.text
    register.run(params, Workspace(tmp_path))
    assert "registered zerovl@1 in registry" in capsys.readouterr().out
    caplog.clear()
    register.run(params, Workspace(tmp_path))
    assert "this model is zerovl@1 in registry already" in capsys.readouterr().out
    assert "has no zerovl yet" not in caplog.text
