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


def test_clipping_and_the_loss_scale_reach_the_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    rows = {}
    for clip_norm in (0.0, 1e-3):
        workspace = copy_project(project, tmp_path / f"clip-{clip_norm}")
        overrides = ["train.precision=fp16", f"train.clip_norm={clip_norm}", "train.eps=1.0"]  # AdamW near plain SGD
        assert run_gang(1, train, workspace.root, *overrides) == [0]
        lines = (run_folder(workspace) / "metrics.jsonl").read_text().splitlines()
        rows[clip_norm] = [json.loads(line) for line in lines]
    free, clipped = rows[0.0], rows[1e-3]
    scales = [row["loss_scale"] for row in clipped]
    assert scales[0] == 65536.0
    assert sorted(scales, reverse=True) == scales  # halved after an overflow, not raised within so few steps
    assert not any("gradient_norm" in row for row in free)
    norms = [row["gradient_norm"] for row in clipped if "gradient_norm" in row]
    assert len(norms) > len(clipped) // 2
    assert min(norms) > 1e-3  # each of these steps was clipped
    assert moved(clipped) < 0.1 * moved(free)


def moved(rows: list[dict[str, float]]) -> float:
    """How far a learned weight went from its start."""
    return abs(rows[-1]["temperature"] - 0.07)
