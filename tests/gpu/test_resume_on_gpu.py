"""`zerovl train` on a GPU in fp16, killed and started again: steps that both processes made have the same loss.

To rounding, and under `machine.deterministic` to the bit.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.tiny_project import make_project, run_folder, set_params, start_command, train, wait_for_step
from zerovl.engine.checkpoint_folder import checkpoint_path, saved_steps
from zerovl.files import read_json_lines
from zerovl.workspace import RUN_LOG, Workspace

pytestmark = pytest.mark.gpu

STEPS, EVERY, KILLED = 72, 4, 18
SETTINGS = (
    f"train.epochs={STEPS / 6}",
    "train.precision=fp16",
    "train.valid_checks=0",
    "machine.kept_graphs=1",
    f"machine.checkpoint_steps={EVERY}",
    "machine.keep_checkpoints=5",
)
# Kernels of the backward pass may add in another order; the first step after the resume has the same weights.
FIRST, LATER = 1e-5, 1e-2


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Tiny shards, and a checkout that processes import from where the package is not installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return make_project(tmp_path / "project")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_killed_run_goes_on_with_the_same_loss(project: Workspace, deterministic: bool) -> None:
    set_params(project, *SETTINGS, f"machine.deterministic={str(deterministic).lower()}")
    first = start_command(project)
    wait_for_step(project, KILLED, first)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL
    folder = run_folder(project)
    before = read_json_lines(folder / RUN_LOG)
    checkpoints = folder / "checkpoints"
    for step in saved_steps(checkpoints):  # steps that both make are wanted
        if step > len(before) - 2:
            shutil.rmtree(checkpoint_path(checkpoints, step))
    resumed = max(saved_steps(checkpoints))

    said = train(project, start_command)
    assert f"resumes after step {resumed}:" in said
    after = read_json_lines(folder / RUN_LOG)
    assert [row["step"] for row in after] == list(range(STEPS))
    both = range(resumed, len(before))
    assert len(both) >= 2
    at_once, later = (0, 0) if deterministic else (FIRST, LATER)
    assert after[resumed]["loss"] == pytest.approx(before[resumed]["loss"], rel=at_once, abs=0)
    for step in both:
        for key, tolerance in (("loss", later), ("lr", 1e-9), ("loss_scale", 0)):
            assert after[step][key] == pytest.approx(before[step][key], rel=tolerance, abs=0), (step, key)
    neighbours = [abs(before[step]["loss"] - before[resumed]["loss"]) for step in range(resumed + 1, len(before))]
    assert max(neighbours) > 10 * FIRST  # steps differ by more than what is allowed between processes
