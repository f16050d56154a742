"""A run that averages its weights: what it writes, and that a stop changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.stops import StopAfter
from tests.support.tiny_project import copy_project, make_project, recipe
from zerovl.bundle_files import WEIGHTS
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.training import run as training
from zerovl.workspace import Workspace

ONE = Ranks(0, 1, torch.device("cpu"), OneRank())


def train(workspace: Workspace, stop: StopRequest) -> Path:
    params = recipe("train.epochs=1.0", "train.valid_checks=1", "train.ema_decay=0.9", "machine.keep_checkpoints=9")
    training.train(params, workspace, ONE, stop)
    (folder,) = workspace.runs.iterdir()
    return folder


def test_the_average_is_written_and_survives_a_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = make_project(tmp_path / "project")
    through = copy_project(project, tmp_path / "through")
    run = train(through, StopRequest())
    assert "a moving average of the weights, decay 0.9, is scored and written" in capsys.readouterr().out
    written = load_file(through.model / WEIGHTS)
    last = sorted((run / "checkpoints").iterdir())[-1]
    stored = load_file(next(last.glob("*.safetensors")))
    name = "image_projection.weight"
    assert torch.equal(written[name], stored[f"average.{name}"])
    assert not torch.equal(written[name], stored[f"model.{name}"])

    stopped = copy_project(project, tmp_path / "stopped")
    train(stopped, StopAfter(2))
    assert not stopped.model.exists()
    train(stopped, StopRequest())
    assert "resumes after step 2" in capsys.readouterr().out
    again = load_file(stopped.model / WEIGHTS)
    assert all(torch.equal(tensor, written[key]) for key, tensor in again.items())
