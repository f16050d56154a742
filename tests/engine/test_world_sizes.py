"""The same global batch on 1, 2 and 8 ranks gives the same losses; a changed world size resumes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.rank_groups import Group, Job, run_groups
from tests.support.tiny_project import BATCH, copy_project, make_project, recipe, run_folder
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.training import run
from zerovl.workspace import Workspace

FP16 = ("precision=fp16", "eps=1.0")  # AdamW near plain SGD, so that clipping shows
ALONE = {
    "plain": ("step=plain",),
    "kept": ("kept_graphs=3",),
    "free": FP16,
    "clipped": (*FP16, "clip_norm=0.001"),
}
NAMES = ("1", "2", "8", "changing", "sharded", *ALONE)
STEPS = 9  # of which six are the first epoch


class StopAfter(StopRequest):
    """A request that comes in the step that makes it so many."""

    def __init__(self, log: Path, steps: int) -> None:
        self.save_asked = False
        self._log = log
        self._steps = steps

    @property
    def name(self) -> str | None:  # type: ignore[override]
        rows = next(iter(self._log.glob("*/metrics.jsonl")), None)
        return "SIGTERM" if rows and rows.read_text().count("\n") >= self._steps else None


def train(ranks: Ranks, root: Path, *overrides: str, stop_after: int = 1000) -> int:
    micro_batch = f"train.micro_batch={min(4, BATCH // ranks.world_size)}"
    settings = recipe("train.mixup=none", "train.epochs=1.5", "train.valid_checks=0", micro_batch, *overrides)
    config = {**settings.model.text_tower.config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {**settings.model.image_tower.options, "drop_rate": 0.0}
    still = settings.model.model_copy(
        update={
            "text_tower": settings.model.text_tower.model_copy(update={"config": config}),
            "image_tower": settings.model.image_tower.model_copy(update={"options": options}),
        }
    )
    workspace = Workspace(root)
    stop = StopAfter(workspace.runs, stop_after)
    return run.train(settings.model_copy(update={"model": still}), workspace, ranks, stop)


def train_until(ranks: Ranks, root: Path, stop_after: int) -> int:
    return train(ranks, root, stop_after=stop_after)


def rows(workspace: Workspace) -> list[dict[str, float]]:
    return [json.loads(row) for row in (run_folder(workspace) / "metrics.jsonl").read_text().splitlines()]


def losses(workspace: Workspace) -> list[float]:
    return [row["loss"] for row in rows(workspace)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Group, Workspace]]:
    """All runs of this file, in one interpreter: a start costs more than a run."""
    folder = tmp_path_factory.mktemp("runs")
    project = make_project(folder / "project")
    workspaces = {name: copy_project(project, folder / name) for name in NAMES}
    jobs: dict[str, Job] = {name: (int(name), train, (workspaces[name].root,)) for name in ("1", "2", "8")}
    for name, overrides in ALONE.items():
        jobs[name] = (1, train, (workspaces[name].root, *(f"train.{override}" for override in overrides)))
    sharded = ("machine.shard_model=true", "train.valid_checks=1", "train.clip_norm=1000.0")  # no gradient is that long
    jobs["sharded"] = (2, train, (workspaces["sharded"].root, *sharded))
    for world_size, stop_after in ((2, 3), (1, 7), (4, 1000)):
        jobs[f"changing to {world_size}"] = (world_size, train_until, (workspaces["changing"].root, stop_after))
    first, *later = list(jobs.values())[-3:]
    groups = run_groups([*list(jobs.values())[:-3], first], *([job] for job in later))
    return {name: (group, workspaces[name.split()[0]]) for name, group in zip(jobs, groups, strict=True)}


@pytest.mark.slow
def test_losses_agree_over_world_sizes(runs: dict[str, tuple[Group, Workspace]]) -> None:
    for name in ("1", "2", "8"):
        group, _ = runs[name]
        assert group.results == [0] * int(name), group.said
    expected = losses(runs["1"][1])
    assert len(expected) == STEPS
    assert min(expected[-3:]) < expected[0]  # it did train
    assert losses(runs["2"][1]) == pytest.approx(expected, abs=1e-5)
    assert losses(runs["8"][1]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_changed_world_size_resumes_with_the_same_pairs(runs: dict[str, tuple[Group, Workspace]]) -> None:
    for world_size, status in ((2, 3), (1, 3), (4, 0)):
        group, workspace = runs[f"changing to {world_size}"]
        assert group.results == [status] * world_size, group.said
    assert losses(workspace) == pytest.approx(losses(runs["1"][1]), abs=1e-5)
    same = "the same pairs in the same order"
    assert f"resumes after step 3, saved on 2 ranks, now 1: {same}" in runs["changing to 1"][0].said
    assert f"resumes after step 7, saved on 1 rank, now 4: {same}" in runs["changing to 4"][0].said


@pytest.mark.slow
def test_a_sharded_model_trains_alike_and_is_whole_in_the_end(runs: dict[str, tuple[Group, Workspace]]) -> None:
    group, workspace = runs["sharded"]
    assert group.results == [0, 0], group.said
    assert losses(workspace) == pytest.approx(losses(runs["2"][1]), abs=1e-5)
    assert rows(workspace)[-1]["valid_rsum"] > 0
    found, expected = (load_file(its.model / "model.safetensors") for its in (workspace, runs["2"][1]))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "kept"])
def test_plain_and_decoupled_agree(runs: dict[str, tuple[Group, Workspace]], name: str) -> None:
    group, workspace = runs[name]
    assert group.results == [0], group.said
    assert losses(workspace) == pytest.approx(losses(runs["1"][1]), abs=1e-5)


@pytest.mark.slow
def test_clipping_and_the_loss_scale_reach_the_run(runs: dict[str, tuple[Group, Workspace]]) -> None:
    free, clipped = (rows(runs[name][1]) for name in ("free", "clipped"))
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
