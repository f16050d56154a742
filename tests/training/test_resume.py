"""Killed, terminated and changed runs, each as a process of its own.

One run of each kind is started by the command itself, the others by `tests.support.fork_server`, ranks too; that
both give the same weights is part of what is shown.
"""

import random
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.support.held_steps import hold_before, start_held
from tests.support.tiny_project import (
    Process,
    copy_project,
    make_project,
    run_folder,
    set_params,
    start_command,
    start_training,
    train,
    wait_for_step,
)
from zerovl.engine.checkpoint_folder import saved_steps
from zerovl.workspace import Workspace

EPOCHS = "train.epochs=6.0"
STEPS = 36
LATEST = 16  # the last step to be killed at
AGAIN = 10  # steps after the restart within which a rank is killed once more
AFTER = 4  # steps that a run may be ahead of the signal; it waits there, however late a busy machine sends it


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_project(tmp_path_factory.mktemp("project"))
    set_params(workspace, EPOCHS)
    return workspace


@pytest.fixture(scope="module")
def uninterrupted(project: Workspace, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    workspace = copy_project(project, tmp_path_factory.mktemp("whole") / "run")
    printed = train(workspace)
    assert "starts from the beginning" in printed
    assert f"{STEPS} of 16 pairs" in printed
    return weights(workspace)


def weights(workspace: Workspace) -> bytes:
    return (workspace.model / "model.safetensors").read_bytes()


def steps_saved(workspace: Workspace) -> list[int]:
    return saved_steps(run_folder(workspace) / "checkpoints")


def wait_for_checkpoint(workspace: Workspace, after: int) -> int:
    """Wait until a checkpoint of a step past `after` is whole; returns the newest."""
    deadline = time.monotonic() + 100
    while max(steps_saved(workspace), default=0) <= after:
        assert time.monotonic() < deadline, "no checkpoint in time"
        time.sleep(0.005)
    return max(steps_saved(workspace))


def test_the_command_itself_trains_alike(project: Workspace, uninterrupted: bytes, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    printed = train(workspace, start_command)
    assert "starts from the beginning" in printed
    assert weights(workspace) == uninterrupted


def test_killed_at_a_random_step_ends_bit_equal(project: Workspace, uninterrupted: bytes, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    for _ in range(2):
        done = max(steps_saved(workspace), default=0) if workspace.runs.is_dir() else 0
        child = start_held(workspace, max(done, LATEST) + AFTER)
        wait_for_step(workspace, random.randrange(done, max(done + 1, LATEST)), child)
        child.kill()
        child.communicate()
        assert not workspace.model.exists()
    train(workspace)
    assert weights(workspace) == uninterrupted
    assert not list(run_folder(workspace).glob("checkpoints/.*"))


def test_sigusr1_saves_and_goes_on_sigterm_saves_and_stops(
    project: Workspace, uninterrupted: bytes, tmp_path: Path
) -> None:
    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, EPOCHS, "machine.checkpoint_steps=1000")
    child = start_held(workspace, 4 + AFTER)
    wait_for_step(workspace, 4, child)
    child.send_signal(signal.SIGUSR1)
    hold_before(workspace.root, 4 + 2 * AFTER)
    asked = wait_for_checkpoint(workspace, 0)
    hold_before(workspace.root, asked + 1 + AFTER)
    wait_for_step(workspace, asked + 1, child)  # it goes on
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=100)
    assert child.returncode == 3
    step = max(steps_saved(workspace))
    assert step > asked
    assert f"SIGUSR1: saves after step {asked} and goes on" in err
    assert f"interrupted by SIGTERM after step {step}: saved" in err
    rows = (run_folder(workspace) / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == step  # the checkpoint is of the current step, not of an earlier multiple
    printed = train(workspace)
    assert f"resumes after step {step}" in printed
    assert weights(workspace) == uninterrupted


def test_finished_run_is_not_trained_again(project: Workspace, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, "train.epochs=1.0")
    train(workspace)
    first = weights(workspace)
    (workspace.model / "model.safetensors").unlink()
    assert "already trained" in train(workspace)
    assert weights(workspace) == first


def test_a_changed_parameter_trains_from_the_beginning(project: Workspace, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, "train.epochs=1.0")
    train(workspace)
    first = weights(workspace)
    set_params(workspace, "train.epochs=1.0", "machine.checkpoint_steps=50")
    assert "already trained" in train(workspace)  # what does not shape the weights changes nothing
    set_params(workspace, "train.epochs=1.0", "train.lr=0.002")
    assert "starts from the beginning" in train(workspace)
    assert weights(workspace) != first
    assert len(list(workspace.runs.iterdir())) == 2


def test_a_second_process_on_the_same_run_is_refused(project: Workspace, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    first = start_held(workspace, AFTER)
    wait_for_step(workspace, 0, first)
    first.send_signal(signal.SIGSTOP)
    try:
        second = start_training(workspace)
        _, err = second.communicate(timeout=100)
        assert second.returncode == 2
        assert f"process {first.pid} trains this run already" in err
    finally:
        first.kill()
        first.communicate()


def ranks_of(child: Process) -> list[psutil.Process]:
    """The two ranks of a launcher, by their numbers; loader workers are children of theirs."""
    ranks = sorted(psutil.Process(child.pid).children(), key=lambda rank: rank.name())
    assert [rank.name() for rank in ranks] == ["rank 0", "rank 1"]  # so the fork server calls them
    return ranks


@pytest.mark.slow
def test_two_ranks_killed_start_again_and_end_bit_equal(project: Workspace, tmp_path: Path) -> None:
    whole = copy_project(project, tmp_path / "whole")
    set_params(whole, EPOCHS, "machine.ranks=2")
    train(whole, start_command)
    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, EPOCHS, "machine.ranks=2", "machine.restarts=1")
    child = start_held(workspace, LATEST + AFTER)
    wait_for_step(workspace, random.randrange(3, LATEST), child)
    first = ranks_of(child)
    victim = random.randrange(2)
    first[victim].kill()
    psutil.wait_procs(first, timeout=60)
    logged = (run_folder(workspace) / "metrics.jsonl").read_text().count("\n")
    hold_before(workspace.root, logged + AGAIN + AFTER)
    # Rows past the logged ones are of the ranks started again. A rank may be two steps past its row, and a signal that
    # comes twice in one step is a cause that stays (tests/training/test_launch.py).
    wait_for_step(workspace, logged + random.randrange(3, AGAIN), child)
    second = ranks_of(child)
    assert not {process.pid for process in first} & {process.pid for process in second}
    second[0].kill()
    _, err = child.communicate(timeout=200)
    assert child.returncode == 1
    _, alive = psutil.wait_procs(first + second, timeout=30)
    assert not alive
    said = [line for line in err.splitlines() if "died by" in line]  # the other rank may speak before, of its SIGTERM
    assert f"rank {victim} (pid {first[victim].pid}) died by SIGKILL" in said[0]
    assert said[0].endswith("all ranks start again from the last checkpoint (restart 1 of 1)")
    assert f"rank 0 (pid {second[0].pid}) died by SIGKILL" in said[1]
    assert "no restart is left (machine.restarts 1)" in err.splitlines()[-1]
    assert "Traceback" not in err
    train(workspace)
    assert weights(workspace) == weights(whole)


@pytest.mark.slow
def test_a_stopped_rank_is_named_and_a_broken_setting_is_not_tried_again(project: Workspace, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, "machine.ranks=2", "train.epochs=400.0", "machine.restarts=0", "machine.watchdog_minutes=0.2")
    child = start_training(workspace)
    wait_for_step(workspace, 2, child)
    ranks = ranks_of(child)
    ranks[1].suspend()
    _, err = child.communicate(timeout=200)
    assert child.returncode == 1
    assert not psutil.wait_procs(ranks, timeout=30)[1]
    last = err.splitlines()[-1]
    assert f"rank 1 (host {socket.gethostname()}, pid {ranks[1].pid}, step " in last
    assert "does not answer" in last

    (workspace.root / "reports" / "validation").unlink()  # a link: the verdict is gone
    child = start_training(workspace)
    _, err = child.communicate(timeout=200)
    assert child.returncode == 2
    assert "start again" not in err
    assert "verdict.json: no such file" in err.splitlines()[-1]


@pytest.mark.slow
def test_signals_on_two_ranks_save_the_same_step_on_both(project: Workspace, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, "machine.ranks=2", "train.epochs=400.0", "machine.checkpoint_steps=100000")
    child = start_training(workspace)
    wait_for_step(workspace, 4, child)
    child.send_signal(signal.SIGUSR1)  # to the launcher, which hands it on
    asked = wait_for_checkpoint(workspace, 0)
    ranks_of(child)[-1].send_signal(signal.SIGUSR1)  # to one rank alone, which tells the other
    asked = wait_for_checkpoint(workspace, asked)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=200)
    assert child.returncode == 3, err
    step = max(steps_saved(workspace))
    assert step >= asked
    assert f"after step {step}: saved" in err
    assert "run it again to go on" in err.splitlines()[-1]
    assert len((run_folder(workspace) / "metrics.jsonl").read_text().splitlines()) == step


@pytest.mark.slow
def test_killed_launcher_leaves_no_rank(project: Workspace, tmp_path: Path) -> None:
    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, "machine.ranks=2", "train.epochs=400.0")
    child = start_training(workspace)
    wait_for_step(workspace, 0, child)
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
