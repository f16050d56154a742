"""A run whose epochs go over captions: what it says at its start, and that a stop changes nothing."""

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


def train(workspace: Workspace, stop: StopRequest) -> None:
    params = recipe("train.epochs=0.75", "train.epoch_of=captions", "train.valid_checks=0", "train.sampling=shuffled")
    training.train(params, workspace, ONE, stop)


def test_a_stopped_run_ends_bit_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = make_project(tmp_path / "project")  # 96 pictures with two captions each
    through, stopped = copy_project(project, tmp_path / "through"), copy_project(project, tmp_path / "stopped")
    train(through, StopRequest())
    said = capsys.readouterr().out
    assert "9 of 16 pairs, about 12 an epoch, 0.75 epochs over 192 captions" in said
    assert "0% are longer than model.max_tokens 25 and are cut there" in said
    train(stopped, StopAfter(7))  # in the second lap over the pictures
    train(stopped, StopRequest())
    assert "resumes after step 7" in capsys.readouterr().out
    written, again = (load_file(its.model / WEIGHTS) for its in (through, stopped))
    assert written.keys() == again.keys()
    assert all(torch.equal(tensor, written[name]) for name, tensor in again.items())
