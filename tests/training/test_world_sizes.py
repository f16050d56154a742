"""The same global batch on 1, 2 and 4 ranks gives the same losses; a changed world size resumes."""

import json
from pathlib import Path

import pytest
import torch
from gang import run_gang
from tiny import copy_project, make_project, recipe, run_folder

from zerovl.training import worker
from zerovl.training.loop import StopRequest
from zerovl.training.ranks import Ranks
from zerovl.workspace import Workspace


def train(ranks: Ranks, root: Path, *overrides: str) -> int:
    settings = recipe("train.mixup=none", "train.epochs=3.5", *overrides)
    config = {**settings.model.text_tower.config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {**settings.model.image_tower.options, "drop_rate": 0.0}
    still = settings.model.model_copy(
        update={
            "text_tower": settings.model.text_tower.model_copy(update={"config": config}),
            "image_tower": settings.model.image_tower.model_copy(update={"options": options}),
        }
    )
    return worker._run(settings.model_copy(update={"model": still}), Workspace(root), ranks, StopRequest())


def losses(workspace: Workspace) -> list[float]:
    return [json.loads(row)["loss"] for row in (run_folder(workspace) / "metrics.jsonl").read_text().splitlines()]


def test_losses_agree_over_world_sizes(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    found = {}
    for world_size in (1, 2, 4):
        workspace = copy_project(project, tmp_path / f"on-{world_size}")
        assert run_gang(world_size, train, workspace.root) == [0] * world_size
        found[world_size] = losses(workspace)[:20]
    assert len(found[1]) == 20
    for world_size in (2, 4):
        assert found[world_size] == pytest.approx(found[1], abs=1e-5)
    assert found[1][-1] < found[1][0]  # it did train


def test_plain_and_decoupled_agree(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    project = make_project(tmp_path / "project")
    found = []
    for step in (["step=plain"], ["step=decoupled"], ["step=decoupled", "kept_graphs=3"]):
        workspace = copy_project(project, tmp_path / str(len(found)))
        assert run_gang(1, train, workspace.root, *(f"train.{value}" for value in step)) == [0]
        found.append(losses(workspace)[:20])
    for decoupled in found[1:]:
        assert found[0] == pytest.approx(decoupled, abs=1e-5)
