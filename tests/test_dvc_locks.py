"""DVC on a file system without flock(2): the doctor's command helps, a run goes on by itself and says so."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from flows import pipeline, stages
from flows.runtime.checkout import Checkout
from flows.runtime.paths import Paths
from tests.support.project_copy import git
from zerovl.commands import dvc_locks, sweep
from zerovl.errors import ZeroVLError
from zerovl.workspace import Workspace

# What each Python that finds this module first has for flock(2).
NO_FLOCK = """
import errno, fcntl, os
def flock(*_):
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
fcntl.flock = flock
"""
# A DVC that is killed while it holds the lock.
KILLED = """
import os, signal
from dvc.repo import Repo
repo = Repo(".")
repo.lock.lock()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of DVC's with one stage, in this and in all other processes without flock."""
    place = tmp_path / "project"
    (place / ".dvc").mkdir(parents=True)
    (place / ".dvc" / "config").write_text("[core]\nno_scm = true\n")
    (place / "dvc.yaml").write_text("stages:\n  copy:\n    cmd: cat in > out\n    deps: [in]\n    outs: [out]\n")
    (place / "in").write_text("words")
    (tmp_path / "first" / "sitecustomize.py").parent.mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(NO_FLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "first"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    refuse(monkeypatch, fcntl, "flock")
    return place


def refuse(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
    def refused(*_: object) -> NoReturn:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(module, name, refused)


def dvc(project: Path, *words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_command_of_the_doctor_lets_dvc_work(project: Path) -> None:
    assert "Unable to acquire lock" in dvc(project, "repro")
    ((level, text),) = dvc_locks.findings(project)
    assert (level, text.partition(";")[0]) == (
        "FAIL",
        f"{project}/.dvc/tmp: its file system has no locks (Operation not supported), so that DVC says "
        "'Unable to acquire lock'",
    )
    with pytest.raises(ZeroVLError, match="has no locks"):
        dvc_locks.require(project)
    (command,) = re.findall(r"`(rm .*)`", text)
    for part in command.split("; "):
        subprocess.run(shlex.split(part), cwd=project, check=True)
    dvc_locks.require(project)
    ((level, text),) = dvc_locks.findings(project)
    assert (level, f"rm -f {project}/.dvc/tmp/lock" in text) == ("note", True)
    assert "Running stage 'copy'" in dvc(project, "repro")


def test_a_run_locks_by_links_and_outlives_a_killed_dvc(project: Path) -> None:
    checkout = Checkout(Paths(project, project), "run", project)
    assert "no locks (Operation not supported)" in dvc_locks.use_links_where_needed(project)
    assert (project / ".dvc" / "config.local").read_text().split() == ["[core]", "hardlink_lock", "=", "True"]
    assert dvc_locks.use_links_where_needed(project) == ""  # by an earlier attempt, or by the user
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=project, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (project / ".dvc" / "tmp" / "lock").exists()
    stages.run_dvc(checkout, ["repro"], pipeline.Silent())
    assert (project / "out").read_text() == "words"


def test_a_run_says_what_it_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pipeline, "get_run_logger", lambda: SimpleNamespace(info=print, warning=said.append))
    pipeline.lock_checkout(Checkout(Paths(project, project), "run", project))
    (text,) = said
    assert text.endswith("DVC locks by hard links in this checkout (core.hardlink_lock)")


def test_where_there_are_no_hard_links_either(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, os, "link")
    expected = r"\.dvc/tmp: no locks \(Operation not supported\) and no hard links \(Operation not supported\), so that"
    ((level, text),) = dvc_locks.findings(project)
    assert level == "FAIL"
    assert re.search(expected, text)
    with pytest.raises(ZeroVLError, match=expected):
        dvc_locks.use_links_where_needed(project)
    assert not (project / ".dvc" / "config.local").exists()
    assert list((project / ".dvc" / "tmp").iterdir()) == []  # no probe is left


def test_a_sweep_says_it_before_its_trials(project: Path) -> None:
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "first")
    with pytest.raises(ZeroVLError, match=r"has no locks .* `rm -f .*dvc config --local core\.hardlink_lock true`"):
        sweep.run(["train.lr=1e-3"], sweep.Budget(1, 1.0), Workspace(project))


def test_a_file_system_with_locks(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert list(dvc_locks.findings(project)) == [("ok", f"{project}/.dvc/tmp can be locked")]
    assert dvc_locks.use_links_where_needed(project) == ""
    lock = project / ".dvc" / "tmp" / "lock"
    lock.touch()
    dvc_locks.remove_left(project)
    assert lock.exists()  # the kernel knows who has it
