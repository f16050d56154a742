"""`zerovl sweep` with DVC's own `dvc exp run --temp`, killed once; a script stands for the stages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.project_copy import git
from tests.support.versioned import make_dvc_project, versioned_environment
from zerovl import params_file
from zerovl.params import Params

# Scores that follow the rate; it waits for the file that GO names, five minutes at most.
STAGE = """
import json, os, time, yaml
end = time.monotonic() + 300
while not os.path.exists(os.environ["GO"]) and time.monotonic() < end:
    time.sleep(0.05)
rsum = 100.0 + 1e4 * yaml.safe_load(open("params.yaml"))["train"]["lr"]
scores = {"rsum": rsum, "rsum_low": rsum - 5, "rsum_high": rsum + 5, "chance_rsum": 16.0}
os.makedirs("reports/evaluation", exist_ok=True)
metrics = {"mean": scores, "overall": scores, "sources": {"shapes": {"rsum": rsum}}, "evaluation_digest": "data"}
json.dump(metrics, open("reports/evaluation/metrics.json", "w"))
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.timeout(300)
def test_a_killed_sweep_goes_on_and_ends_with_the_comparison(tmp_path: Path) -> None:
    """On a commit that was never run to its end, which is said before the first trial."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    make_dvc_project(root)
    stage = {"cmd": f"{sys.executable} stage.py", "params": ["train.lr"], "outs": ["reports/evaluation"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    (root / "stage.py").write_text(STAGE)
    (root / ".gitignore").write_text("/reports\n/runs\n")
    params_file.write(Params(), root / "params.yaml")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "first")
    go = tmp_path / "go"
    environment = {**versioned_environment(tmp_path), "GO": str(go), "ZEROVL_DEVICE": "cpu"}
    command = [sys.executable, "-m", "zerovl.cli", "sweep", "train.lr=0.002,0.004"]

    killed = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert killed.stdout is not None
        said = [killed.stdout.readline()]
        while "trial 1 of 2" not in said[-1] and said[-1]:
            said.append(killed.stdout.readline())
        assert said[0] == "2 trials of 2 combinations, 0 there already\n"
        assert said[1].startswith("the commit's scores cannot be had (")
        assert "the trials will be compared with each other alone" in said[1]
        wait_for_stage(root)
        killed.send_signal(signal.SIGKILL)
        go.touch()
        killed.stdout.read()  # to the end of the trial that it has left
        assert killed.wait() == -signal.SIGKILL
    finally:  # or what it has started would wait
        go.touch()
        killed.kill()
        killed.wait()
    assert len(experiments(root)) == 1

    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials of 2 combinations, 1 there already" in done.stdout
    assert "trial 1 of 1: train.lr=0.004" in done.stdout
    best, second = sorted(experiments(root), reverse=True)
    table = done.stdout[done.stdout.index("TRIAL") :]
    assert table.index(f"{best}") < table.index("140.00") < table.index(f"{second}") < table.index("120.00")
    comparison = table[table.index("120.00") + 6 :]
    assert best in comparison
    assert second in comparison
    assert "HEAD" not in comparison
    assert (root / "reports" / "comparison.html").is_file()


def wait_for_stage(root: Path) -> None:
    """Wait until DVC has begun the stage, in a copy of the project."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes()
                where = os.readlink(process / "cwd")
            except OSError:
                continue
            if b"stage.py" in words and Path(where).is_relative_to(root):
                return
        time.sleep(0.1)
    raise AssertionError("no stage began")


def experiments(root: Path) -> list[str]:
    return git(root, "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()
