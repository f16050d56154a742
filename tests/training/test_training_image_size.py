"""Smaller pictures in training than in use (FixRes, arXiv 1906.06423)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models.resnet import ResNet

from tests.support.stops import StopAfter
from tests.support.tiny_project import make_project, recipe
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.model.architecture import load_architecture
from zerovl.training import run as training

ONE = Ranks(0, 1, torch.device("cpu"), OneRank())


def test_the_tower_learns_on_one_size_and_the_bundle_is_for_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_project(tmp_path / "project")
    seen: dict[bool, set[int]] = {True: set(), False: set()}
    forward = ResNet.forward

    def watched(tower: ResNet, pixels: torch.Tensor) -> torch.Tensor:
        seen[tower.training].add(pixels.shape[-1])
        return forward(tower, pixels)

    monkeypatch.setattr(ResNet, "forward", watched)
    tower = ["model.image_tower.name=test_resnet", "model.image_tower.options={}"]
    params = recipe(*tower, "train.epochs=1.0", "train.valid_checks=1", "train.image_size=24")
    own = params.model.image_size
    training.train(params, workspace, ONE, StopRequest())
    assert seen == {True: {24}, False: {own}}
    assert load_architecture(workspace.model).image_size == own
    assert f"learns on pictures of 24 pixels, is used on {own}" in capsys.readouterr().out


def test_a_frozen_tower_that_sees_what_evaluation_sees_says_that_it_has_no_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["train.freeze=[image]", "train.augment.crop_scale=[1.0,1.0]", "train.image_size=24"]
    workspace = make_project(tmp_path / "project")
    training.train(recipe(*changes), workspace, ONE, StopAfter(1))
    assert "train.image_size 24 has no effect" in capsys.readouterr().out
