"""`zerovl sweep`: what it tries and in which order, when it ends, and what it leaves out; DVC is stood in for."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.project_copy import git
from zerovl import cli, gpu_leases, params_file, trials
from zerovl.commands import sweep
from zerovl.commands.sweep import Budget, Trial
from zerovl.comparison import revision
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.workspace import Workspace

LR = "train.lr=5e-4,1e-3,3e-3"


class Ended:
    """A trial that has ended when it is looked at; `looks` times it has not."""

    def __init__(self, status: int, looks: int = 0) -> None:
        self.status, self.looks, self.interrupted = status, looks, False

    def poll(self) -> int | None:
        self.looks -= 1
        return self.status if self.looks < 0 or self.interrupted else None

    def interrupt(self) -> None:
        self.interrupted = True

    def wait(self) -> int:
        return self.status


class Dvc:
    """Experiments by name with their RSUM, which grows with each; `fails` at the trials of these numbers."""

    def __init__(self, fails: Sequence[int] = (), looks: int = 0) -> None:
        self.scores: dict[str, float] = {}
        self.commands: list[list[str]] = []
        self.outputs: list[Path | None] = []
        self.trials: list[Ended] = []
        self.at_once = 0
        self._fails, self._looks = fails, looks

    def start(self, words: Sequence[str], output: Path | None) -> Ended:
        self.commands.append(list(words))
        self.outputs.append(output)
        self.at_once = max(self.at_once, 1 + sum(trial.looks >= 0 for trial in self.trials))
        failed = len(self.commands) in self._fails
        self.trials.append(Ended(int(failed), self._looks))
        if not failed:
            self.scores[words[words.index("--name") + 1]] = 100.0 + len(self.commands)
        return self.trials[-1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    git(tmp_path, "init", "--quiet")
    params_file.write(Params(), tmp_path / "params.yaml")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(revision, "experiments", lambda root: {})
    monkeypatch.setattr(revision, "fetch", lambda name, root, aside: "commit")
    return Workspace(tmp_path)


def use(dvc: Dvc, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    monkeypatch.setattr(revision, "experiments", lambda root: dict.fromkeys(dvc.scores, "commit"))
    monkeypatch.setattr(sweep, "_score", lambda name, root: dvc.scores.get(name))
    return dvc


def test_all_combinations_then_the_best_first(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc = use(Dvc(fails=[2]), monkeypatch)
    changes = (LR, "train.augment.crop_scale=[0.5, 1.0],[0.8, 1.0]")
    found = sweep.run(changes, Budget(20, 1.0), here, dvc.start)
    assert len(dvc.commands) == 6
    name = dvc.commands[0][5]
    assert re.fullmatch(r"crop-scale-0.5-1.0-lr-0.0005-[0-9a-f]{8}", name)
    assert dvc.commands[0] == [
        *("--wait-for-lock", "exp", "run", "--temp", "--name", name),
        *("-S", "train.lr=0.0005", "-S", "train.augment.crop_scale=[0.5,1.0]"),
    ]
    assert (dvc.at_once, set(dvc.outputs)) == (1, {None})  # there is one CPU
    commit = git(here.root, "rev-parse", "HEAD")[:12]
    assert found == [commit, *sorted(dvc.scores, key=lambda name: -dvc.scores[name])][:6]
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
    assert sweep.run([LR], Budget(3, 0.0), here, dvc.start)[0] == git(here.root, "rev-parse", "HEAD")[:12]
    assert len(dvc.commands) == 2
    assert "the time is over, 1 trial not begun" in capsys.readouterr().out


@pytest.fixture
def five_gpus(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_GPUS", "GPU-a,GPU-b,GPU-c,GPU-d,GPU-e")
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.setenv("ZEROVL_LEASE", str(tmp_path_factory.mktemp("leases")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(trials, "_POLL", 0.0)


@pytest.mark.usefixtures("five_gpus")
def test_as_many_at_once_as_there_are_free_gpus_for(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = gpu_leases.take(1, ["GPU-b"], "run other", print)
    dvc = use(Dvc(looks=3), monkeypatch)
    sweep.run([LR, "machine.ranks=2,1"], Budget(20, 1.0), here, dvc.start)
    assert (len(dvc.commands), dvc.at_once) == (6, 2)  # two GPUs each of the four that are free
    name = dvc.commands[0][5]
    assert dvc.outputs[0] == here.runs / "sweeps" / f"{name}.log"
    assert "2 at once, each on GPUs of its own" in capsys.readouterr().out
    held.release()
    assert [trials.side_by_side(ranks) for ranks in (0, 1, 2, 5)] == [1, 5, 2, 1]
    with pytest.raises(ZeroVLError, match=r"machine\.ranks is 6, to be had: 5 GPUs"):
        trials.side_by_side(6)


COMMANDS = [trials.Command(f"trial-{number}", ("exp", "run", "--name", str(number)), "") for number in range(3)]


def test_when_the_time_is_over_all_that_run_are_asked_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc = Dvc(looks=10**6)
    monkeypatch.setattr(trials.time, "monotonic", lambda: 9.0 if len(dvc.trials) == 2 else 0.0)
    trials.run_all(COMMANDS, 5.0, dvc.start, 2, tmp_path)
    assert [trial.interrupted for trial in dvc.trials] == [True, True]
    assert "the time is over, 1 trial not begun" in capsys.readouterr().out


WAITS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
print("ready", flush=True)
time.sleep(600)
"""


WAITS_FOR_TWO = """
import os, signal, sys, time
def once(*_):
    signal.signal(signal.SIGINT, lambda *_: sys.exit(4))
    os.kill(os.getppid(), signal.SIGINT)  # as somebody does who presses Ctrl-C again
signal.signal(signal.SIGINT, once)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_second_interrupt_is_for_the_trials_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(_words: Sequence[str], _output: Path | None) -> trials.DvcProcess:
        command = [sys.executable, "-c", WAITS_FOR_TWO]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == b"ready\n"
        return trials.DvcProcess(started[-1])

    monkeypatch.setattr(trials.time, "sleep", lambda _seconds: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            trials.run_all(COMMANDS[:1], float("inf"), start, 1, tmp_path)
        assert started[0].poll() == 4  # waited for
    finally:
        started[0].kill()
        started[0].communicate()
    assert capsys.readouterr().out.splitlines()[-1] == "interrupted, 1 trial not at an end; the same command goes on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_children_end_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """A signal that would end the sweep alone comes while two trials run; each gets one SIGINT, and is waited for."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def stand_in(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(start([sys.executable, "-c", WAITS], **{**options, "stdout": subprocess.PIPE}))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == b"ready\n"  # it has its handler
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", stand_in)
    monkeypatch.setattr(trials.time, "sleep", lambda _seconds: signal.raise_signal(number))
    handler = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt):
            trials.run_all(COMMANDS, float("inf"), trials.DvcProcess.start, 2, tmp_path / "logs")
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, handler)
        for child in started:
            child.kill()
            child.communicate()
    assert [child.returncode for child in started] == [3, 3]
    assert capsys.readouterr().out.splitlines()[-1] == "interrupted, 3 trials not at an end; the same command goes on"
    assert (tmp_path / "logs" / "trial-0.log").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.lr"], "expected KEY=VALUE,VALUE"),
        (["train.lr=1e-3", "train.lr=3e-3"], "each key once"),
        (["train.lr=[1"], "is not a list of values"),
        (["train.seed=range(1,4,1)"], "range(...) and choice(...) are for `dvc exp run --queue`; give the values"),
        (["train.lrr=1e-3"], "params.yaml: train.lrr: no such key; correct its spelling (train.lr?)"),
        (["trian.lr=1e-3"], "params.yaml: trian.lr: no such key; correct its spelling (train.lr?)"),
        (["model.text_tower.config.width=8"], "width: no such key; correct its spelling, or write it into the file"),
        (["model.text_tower.config={hidden_size: 8}"], "is a mapping; name the key inside it"),
        (["data.raw='${train.lr}'"], "data.raw: ${train.lr}: DVC takes ${...} for another key's value"),
        (["train.lr=1e-3,-1"], "params.yaml with train.lr=-1: 1 error"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(here: Workspace, changes: list[str], words: str) -> None:
    with pytest.raises(ZeroVLError, match=re.escape(words)):
        sweep.run(changes, Budget(9, 1.0), here, lambda words, output: pytest.fail("it ran"))


def test_the_command_takes_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], Budget]] = []
    monkeypatch.setattr(sweep, "run", lambda changes, budget, _: asked.append((changes, budget)) or [])
    assert cli.main(["sweep", LR, "train.weight_decay=0.001,0.05", "--trials", "4", "--hours", "8"]) == 0
    assert cli.main(["sweep", LR]) == 0
    assert asked == [([LR, "train.weight_decay=0.001,0.05"], Budget(4, 8.0, 0)), ([LR], Budget(20, 24.0, 0))]


def test_of_many_combinations_only_the_drawn_ones_are_made(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twenty = ",".join(map(str, range(1, 21)))  # fewer than memory holds, so that this ends where all are made
    keys = ("train.seed", "train.warmup_steps", "evaluate.seed", "evaluate.bootstrap")
    made: list[Trial] = []
    monkeypatch.setattr(sweep, "Trial", lambda *given: made.append(Trial(*given)) or made[-1])
    monkeypatch.setattr(sweep, "check", lambda *_: None)
    dvc = use(Dvc(), monkeypatch)
    sweep.run([f"{key}={twenty}" for key in keys], Budget(3, 1.0), here, dvc.start)
    assert "3 trials of 160,000 combinations" in capsys.readouterr().out
    assert len(made) == len(dvc.commands) == 3


def test_a_sweep_is_of_a_commit(here: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ZeroVLError, match=r"^--trials 0: give 1 or more$"):
        sweep.run([LR], Budget(0, 1.0), here)
    with pytest.raises(ZeroVLError, match=r"^--hours -1: give 0 or more$"):
        sweep.run([LR], Budget(1, -1.0), here)
    (here.root / "params.yaml").write_text("edited")
    with pytest.raises(ZeroVLError, match=r"params.yaml: differ from the commit"):
        sweep.run([LR], Budget(9, 1.0), here)
    with pytest.raises(ZeroVLError, match="git has no commit here"):
        sweep.run([LR], Budget(9, 1.0), Workspace(tmp_path.parent))
