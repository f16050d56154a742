"""Two torchrun agents on this machine stand for two nodes.

They are forked with their ranks (`tests.support.fork_server`), but for one agent at the end, which is the command as
one types it and starts its rank as an interpreter of its own: to the last bit it makes no difference.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.fork_server import server
from tests.support.held_steps import PREPARE, hold_before
from tests.support.ports import free_port
from tests.support.tiny_project import Process, copy_project, make_project, run_folder, set_params, train, wait_for_step
from zerovl.engine.checkpoint_folder import saved_steps
from zerovl.workspace import Workspace

EPOCHS, STEPS = "train.epochs=4.0", 24


def start_agent(workspace: Workspace, port: int, *, forked: bool) -> Process:
    options = f"--nnodes 2 --nproc-per-node 1 --max-restarts 1 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{port}"
    arguments = [*options.split(), "--local-addr", "127.0.0.1", "-m", "zerovl.training.worker", "params.yaml"]
    env = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1800"}
    if forked:
        torchrun = "torch.distributed.run:main"
        return server().start(torchrun, *arguments, cwd=workspace.root, env=env, merge=True, prepare=PREPARE)
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        cwd=workspace.root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_nodes(workspace: Workspace, *, forked: tuple[bool, bool] = (True, True)) -> list[Process]:
    port = free_port()
    return [start_agent(workspace, port, forked=its) for its in forked]


def ranks_of(nodes: list[Process]) -> list[psutil.Process]:
    return [process for node in nodes for process in psutil.Process(node.pid).children()]


@pytest.mark.slow
def test_two_nodes_start_again_after_a_kill_and_stop_together_when_one_is_told_to(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    whole = copy_project(project, tmp_path / "whole")
    set_params(whole, "machine.ranks=2", EPOCHS)
    train(whole)

    workspace = copy_project(project, tmp_path / "run")
    set_params(workspace, EPOCHS)
    hold_before(workspace.root, 10)
    nodes = start_nodes(workspace)
    wait_for_step(workspace, 6, nodes[0])
    first = ranks_of(nodes)
    os.kill(first[1].pid, signal.SIGKILL)
    psutil.wait_procs(first, timeout=60)
    hold_before(workspace.root, 18)
    wait_for_step(workspace, 14, nodes[0])
    second = ranks_of(nodes)
    nodes[1].send_signal(signal.SIGTERM)  # saves on both, and neither agent starts anything again
    said = [node.communicate(timeout=200)[0] for node in nodes]
    assert all(node.returncode not in (0, None) for node in nodes)
    assert len(second) == 2
    assert not psutil.wait_procs(first + second, timeout=30)[1]
    together = "".join(said)
    assert not {process.pid for process in first} & {process.pid for process in second}
    assert "resumes after step" in together
    step = max(saved_steps(run_folder(workspace) / "checkpoints"))
    assert step > 14
    assert f"after step {step}: saved" in together

    hold_before(workspace.root, STEPS)
    nodes = start_nodes(workspace, forked=(False, True))  # the first by the command as one types it
    said = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert f"resumes after step {step}" in "".join(said)
    assert (workspace.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()
