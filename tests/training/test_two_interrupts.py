"""Two real Ctrl-C in a hurry, and one after the answer, in a training process of one rank."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.support.fork_server import Forked, server
from tests.support.tiny_project import make_project, run_folder
from tests.support.waiting_step import READING, STEPS, WAITS
from zerovl.workspace import Workspace

ANSWER = "zerovl train: SIGINT: finishes the step and saves; press Ctrl-C again to leave without"


def start(workspace: Workspace, reading: float) -> Forked:
    """Start training; returns when it is in the step that waits."""
    child = server().start(
        "zerovl.cli:main",
        "train",
        cwd=workspace.root,
        env={**os.environ, READING: str(reading)},
        prepare="tests.support.waiting_step:in_the_fourth",
    )
    wait_until(child, workspace.root / WAITS)
    return child


def wait_until(child: Forked, path: Path) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def newest_checkpoint(workspace: Workspace) -> str:
    return max(path.name for path in run_folder(workspace).glob("checkpoints/*"))


def test_the_first_is_answered_and_one_after_the_answer_leaves(tmp_path: Path) -> None:
    workspace = make_project(tmp_path / "project")
    # However late a busy machine hands the second one on, the first one's answer cannot have been read.
    child = start(workspace, reading=1000.0)
    child.send_signal(signal.SIGINT)
    time.sleep(0.15)
    child.send_signal(signal.SIGINT)
    time.sleep(0.15)
    assert child.poll() is None
    (workspace.root / WAITS).unlink()
    _, said = child.communicate(timeout=200)
    assert (child.returncode, said.count(ANSWER)) == (3, 1), said
    assert newest_checkpoint(workspace) == "step-00000004"

    child = start(workspace, reading=0.0)
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    heard = ""
    while ANSWER not in heard:
        heard += child.stderr.readline()
        assert child.poll() is None, heard
    time.sleep(0.3)  # nobody reads faster, and one that comes while the answer's handler is on its way out is none
    while child.poll() is None:  # on a machine so busy that it was
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(10)
    printed, said = child.communicate()
    assert f"resumes after step {STEPS}" in printed + heard
    assert (child.returncode, ANSWER in said) == (130, False), said
    assert newest_checkpoint(workspace) == "step-00000006"  # a regular one, of each third step; nothing of the seventh
