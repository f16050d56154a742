"""`zerovl sweep` with DVC's own `dvc exp run --temp`, killed once and two at a time; a script stands for the stages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.fork_server import start_zerovl
from tests.support.paths import ROOT
from tests.support.project_copy import git
from tests.support.versioned import make_dvc_project, versioned_environment
from zerovl import params_file

# Scores that follow the rate, written at once: what comes after decides when the stage ends.
SCORES = """
import json, os, time, yaml
rate = yaml.safe_load(open("params.yaml"))["train"]["lr"]
rsum = 100.0 + 1e4 * rate
scores = {"rsum": rsum, "rsum_low": rsum - 5, "rsum_high": rsum + 5, "chance_rsum": 16.0}
os.makedirs("reports/evaluation", exist_ok=True)
metrics = {"mean": scores, "overall": scores, "sources": {"shapes": {"rsum": rsum}}, "evaluation_digest": "data"}
json.dump(metrics, open("reports/evaluation/metrics.json", "w"))
"""
# Waits for the file that GO names, five minutes at most.
WAITS = """
end = time.monotonic() + 300
while not os.path.exists(os.environ["GO"]) and time.monotonic() < end:
    time.sleep(0.05)
"""
# Takes a GPU as `zerovl train` does, says so in a file, and ends once it has met another, or none is left to come.
MEETS = """
from zerovl import own_gpus
own_gpus.take(own_gpus.count(1), "train")
end = time.monotonic() + 300

def say(what):
    with open(os.environ["SAID"], "a") as said:
        said.write(f"{what} {rate} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")

def done():
    there, begun = set(), 0
    for line in open(os.environ["SAID"]):
        what, other, _ = line.split()
        begun += what == "begins"
        (there.add if what == "begins" else there.discard)(other)
        if {str(rate)} < there:
            return True
    return begun == 5

say("begins")
while not done() and time.monotonic() < end:
    time.sleep(0.05)
say("ends")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose one stage runs `stage.py`, which is not there yet."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    make_dvc_project(folder)
    stage = {"cmd": f"{sys.executable} stage.py", "params": ["train.lr"], "outs": ["reports/evaluation"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    (folder / ".gitignore").write_text("/reports\n/runs\n")
    return folder


def commit(root: Path, program: str, *changes: str) -> None:
    """What the stage is, and parameters."""
    (root / "stage.py").write_text(program)
    params_file.write(params_file.from_recipe({}, list(changes), "test"), root / "params.yaml")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "first")


@pytest.mark.timeout(300)
def test_a_killed_sweep_goes_on_and_ends_with_the_comparison(root: Path, tmp_path: Path) -> None:
    """On a commit that was never run to its end, which is said before the first trial."""
    commit(root, SCORES + WAITS)
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


@pytest.mark.timeout(600)
def test_five_side_by_side_each_on_a_gpu_of_its_own(root: Path, tmp_path: Path) -> None:
    """As docs/experiments.md has it, on two GPUs; forked, as `zerovl` itself imports for longer than it works."""
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    [words] = re.findall(r"^\$ zerovl (sweep train\.lr=\S+)$", page, re.MULTILINE)
    commit(root, SCORES + MEETS, "machine.ranks=1")
    said = tmp_path / "said"
    environment = {
        **{name: value for name, value in versioned_environment(tmp_path).items() if name != "CUDA_VISIBLE_DEVICES"},
        "ZEROVL_DEVICE": "auto",
        "ZEROVL_GPUS": "GPU-a,GPU-b",
        "ZEROVL_LEASE": str(tmp_path / "leases"),
        "SAID": str(said),
    }

    def zerovl(*words: str) -> str:
        child = start_zerovl(*words, cwd=root, env=environment)
        out, err = child.communicate(timeout=500)
        assert child.returncode == 0, out + err
        return out

    printed = zerovl(*words.split())
    assert "2 at once, each on GPUs of its own" in printed
    there: dict[str, str] = {}  # the trials that run, each with what it sees
    most = 0
    for what, rate, sees in (line.split() for line in said.read_text().splitlines()):
        if what == "begins":
            assert sees in {"GPU-a", "GPU-b"} - set(there.values())
            there[rate] = sees
        else:
            assert there.pop(rate) == sees
        most = max(most, len(there))
    assert (most, there) == (2, {})
    names = re.findall(r"^(lr-\S+) +[\d.]+$", printed, re.MULTILINE)
    rates = [float(name.split("-")[1]) for name in names]
    assert rates == sorted(map(float, words.partition("=")[2].split(",")), reverse=True)  # the best first
    assert printed.endswith(zerovl("compare", *names))


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
