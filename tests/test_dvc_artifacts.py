"""`artifacts:` of dvc.yaml, as `dvc artifacts get` sees it: the model by its name and a version's tag."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

SCRIPTS = Path(sys.executable).parent


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_model_is_found_by_name(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "no-config"),
        "DVC_NO_ANALYTICS": "1",
    }

    def run(*words: str, cwd: Path = project) -> str:
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    assert set(artifacts) == {"zerovl"}
    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    run("dvc", "remote", "add", "--default", "here", str(tmp_path / "remote"))
    (project / "model").mkdir()
    (project / "model" / "config.json").write_text("{}")
    stage = {"cmd": "true", "outs": ["model"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}, "artifacts": artifacts}))
    run("dvc", "commit", "--quiet", "--force", "train")
    run("dvc", "push", "--quiet")
    run("git", "add", "--all")
    author = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    run("git", *author, "commit", "--quiet", "-m", "first")
    run("git", *author, "tag", "-a", "zerovl@v1.0.0", "-m", "first")
    run("dvc", "artifacts", "get", str(project), "zerovl", "--rev", "v1.0.0", "-o", "fetched", cwd=tmp_path)
    assert (tmp_path / "fetched" / "config.json").read_text() == "{}"
