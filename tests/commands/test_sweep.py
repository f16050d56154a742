"""`zerovl sweep`: what it tries and in which order, when it ends, and what it leaves out; DVC is stood in for."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.project_copy import git
from zerovl import params_file
from zerovl.commands import sweep
from zerovl.commands.sweep import Budget, Trial
from zerovl.comparison import revision
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.workspace import Workspace

LR = "train.lr=5e-4,1e-3,3e-3"


class Dvc:
    """Experiments by name with their RSUM, which grows with each; `fails` at the trials of these numbers."""

    def __init__(self, fails: Sequence[int] = ()) -> None:
        self.scores: dict[str, float] = {}
        self.commands: list[list[str]] = []
        self.seconds: list[float] = []
        self._fails = fails

    def start(self, words: Sequence[str], seconds: float) -> int:
        self.commands.append(list(words))
        self.seconds.append(seconds)
        if len(self.commands) in self._fails:
            return 1
        self.scores[words[words.index("--name") + 1]] = 100.0 + len(self.commands)
        return 0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    git(tmp_path, "init", "--quiet")
    params_file.write(Params(), tmp_path / "params.yaml")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(revision, "experiments", lambda root: {})
    return Workspace(tmp_path)


def use(dvc: Dvc, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    monkeypatch.setattr(revision, "experiments", lambda root: dict.fromkeys(dvc.scores, "commit"))
    monkeypatch.setattr(sweep, "_score", lambda name, root: {"HEAD": 90.0, **dvc.scores}.get(name))
    return dvc


def test_all_combinations_then_the_best_first(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc = use(Dvc(fails=[2]), monkeypatch)
    changes = (LR, "train.augment.crop_scale=[0.5, 1.0],[0.8, 1.0]")
    found = sweep.run(changes, Budget(20, 1.0), here, dvc.start)
    assert len(dvc.commands) == 6
    name = dvc.commands[0][4]
    assert re.fullmatch(r"lr-0.0005-crop-scale-0.5-1.0-[0-9a-f]{8}", name)
    assert dvc.commands[0] == [
        *("exp", "run", "--temp", "--name", name),
        *("-S", "train.lr=0.0005", "-S", "train.augment.crop_scale=[0.5, 1.0]"),
    ]
    assert all(3500 < left <= 3600 for left in dvc.seconds)
    assert found == ["HEAD", *sorted(dvc.scores, key=lambda name: -dvc.scores[name])][:6]
    printed = capsys.readouterr().out
    assert "6 trials of 6 combinations, 0 there already" in printed
    assert "did not come to its end (status 1)" in printed
    # Again: what is missing alone.
    sweep.run(changes, Budget(20, 1.0), here, dvc.start)
    assert len(dvc.commands) == 7
    assert dvc.commands[6] == dvc.commands[1]


def test_the_budget_ends_it(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc = use(Dvc(), monkeypatch)
    sweep.run([LR], Budget(2, 1.0), here, dvc.start)
    names = set(dvc.scores)
    assert len(names) == 2
    sweep.run([LR], Budget(2, 1.0), here, dvc.start)
    assert set(dvc.scores) == names  # the same draw
    assert sweep.run([LR], Budget(3, 0.0), here, dvc.start)[0] == "HEAD"
    assert len(dvc.commands) == 2
    assert "the time is over, 1 trial not begun" in capsys.readouterr().out


WAITS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes that are started in place of dvc; each ends with 3 at a SIGINT."""
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def stand_in(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        child = start([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True, **options)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"  # it has its handler
        return child

    monkeypatch.setattr(subprocess, "Popen", stand_in)
    yield started
    for child in started:
        child.kill()
        child.communicate()


def test_a_child_ends_when_the_time_is_over(children: list[subprocess.Popen[str]]) -> None:
    """The command gets one SIGINT, and what it does then is waited for."""
    assert sweep.start_dvc(["exp", "run"], 0.0) == 3
    assert children[0].returncode == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_child_ends_with_the_sweep(
    children: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A signal that would end the sweep alone comes while the child is waited for."""
    start = subprocess.Popen  # in place of dvc

    def stand_in(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        child = start(command, **options)
        wait = child.wait

        def signalled(seconds: float | None = None) -> int:
            if seconds is not None:  # at first, for as long as the trial may take
                signal.raise_signal(number)
            return wait(seconds)

        child.wait = signalled  # type: ignore[method-assign]
        return child

    monkeypatch.setattr(subprocess, "Popen", stand_in)
    handler = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep.start_dvc(["exp", "run"], 600.0)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, handler)
    assert children[0].returncode == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.lr"], "expected KEY=VALUE,VALUE"),
        (["train.lr=1e-3", "train.lr=3e-3"], "each key once"),
        (["train.lr=[1"], "is not a list of values"),
        (["train.lrr=1e-3"], "params.yaml: train.lrr: no such key"),
        (["model.text_tower.config={hidden_size: 8}"], "is a mapping; name the key inside it"),
        (["train.lr=1e-3,-1"], "params.yaml with train.lr=-1: 1 error"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(here: Workspace, changes: list[str], words: str) -> None:
    with pytest.raises(ZeroVLError, match=re.escape(words)):
        sweep.run(changes, Budget(9, 1.0), here, lambda words, seconds: pytest.fail("it ran"))


def test_names_tell_settings_and_commits_apart() -> None:
    given = [("train.image_size", 32, "a"), ("model.image_size", 32, "a"), ("train.image_size", 32, "b")]
    names = [Trial({key: value}, commit).name for key, value, commit in given]
    assert len(set(names)) == 3
    assert all(name.startswith("image-size-32-") for name in names)
    assert Trial({"train.loss": "sigmoid"}, "a").name.startswith("loss-sigmoid-")


def test_a_sweep_is_of_a_commit(here: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ZeroVLError, match="--trials 0"):
        sweep.run([LR], Budget(0, 1.0), here)
    (here.root / "params.yaml").write_text("edited")
    with pytest.raises(ZeroVLError, match=r"params.yaml: differ from the commit"):
        sweep.run([LR], Budget(9, 1.0), here)
    with pytest.raises(ZeroVLError, match="git has no commit here"):
        sweep.run([LR], Budget(9, 1.0), Workspace(tmp_path.parent))
