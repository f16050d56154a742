"""A run that goes on from another one's checkpoint with other settings, and weights of a checkpoint to start from."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.rank_groups import run_group
from tests.support.stops import StopAfter
from tests.support.tiny_project import copy_project, make_project, recipe
from zerovl import cli, params_file
from zerovl.bundle_files import WEIGHTS
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.steps import DecoupledStep
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.training import run as training
from zerovl.training.start import find_checkpoint
from zerovl.workspace import Workspace

EPOCHS, STEPS = "train.epochs=2.0", 12
ONE = Ranks(0, 1, torch.device("cpu"), OneRank())


def settings(*overrides: str) -> Params:
    return recipe(EPOCHS, "train.micro_batch=8", "train.valid_checks=0", "machine.keep_checkpoints=9", *overrides)


def train(workspace: Workspace, *overrides: str, stop: StopRequest | None = None) -> Path:
    """Train in this process; returns the run's folder."""
    before = set(workspace.runs.glob("*"))
    training.train(settings(*overrides), workspace, ONE, stop or StopRequest())
    new = set(workspace.runs.glob("*")) - before
    return new.pop() if new else next(iter(before))


def weights(workspace: Workspace) -> dict[str, torch.Tensor]:
    return load_file(workspace.model / WEIGHTS)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def whole(project: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    """A run to its end, with a checkpoint every three steps."""
    workspace = copy_project(project, tmp_path_factory.mktemp("whole") / "run")
    return workspace, train(workspace)


@pytest.fixture
def workspace(whole: tuple[Workspace, Path], tmp_path: Path) -> Workspace:
    """A project in which only that run has been."""
    made = copy_project(whole[0], tmp_path / "run")
    made.runs.mkdir()
    (made.runs / whole[1].name).symlink_to(whole[1])
    return made


def test_the_same_settings_end_with_the_same_weights(
    whole: tuple[Workspace, Path], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = whole[1].name
    run = train(workspace, f"train.continue_from={parent[:8]}@6")
    printed = capsys.readouterr().out
    assert f"goes on from {parent}@6 with other settings, as a run of its own" in printed
    assert "differs  nothing" in printed, printed
    assert run.name != parent
    assert same(weights(workspace), weights(whole[0]))
    described = json.loads(workspace.training_run.read_text())
    assert (described["fingerprint"], described["parent"]) == (run.name, {"run": parent, "step": 6})
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(STEPS))  # the curves are whole


def test_other_settings_are_named_and_trained_with(
    whole: tuple[Workspace, Path], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = whole[1].name
    changed = [
        "train.lr=0.004",
        "train.clip_norm=1.0",
        "train.epochs=3.0",
        "train.precision=bf16",
        "train.freeze=[text]",
    ]
    run = train(workspace, f"train.continue_from={parent}", *changed)  # its newest checkpoint
    printed = capsys.readouterr().out
    assert f"goes on from {parent}@{STEPS}" in printed
    for said in (
        "train.lr: 0.001 -> 0.004",
        "train.clip_norm: 0.0 -> 1.0",
        "train.epochs: 2.0 -> 3.0",
        "train.precision: float32 -> bf16",
        "train.freeze: [] -> ['text']",
    ):
        assert f"differs  {said}" in printed
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(18))
    assert "gradient_norm" in rows[STEPS]
    assert rows[STEPS]["lr"] != rows[STEPS - 1]["lr"]
    text = "text_tower.embeddings.word_embeddings.weight"
    assert torch.equal(weights(workspace)[text], weights(whole[0])[text])  # frozen from there on
    assert not same(weights(workspace), weights(whole[0]))


def test_it_resumes_by_its_own_checkpoint(
    whole: tuple[Workspace, Path], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = workspace.runs / whole[1].name
    parent.unlink()
    shutil.copytree(whole[1], parent)
    origin = f"train.continue_from={parent.name}@6"
    run = train(workspace, origin, stop=StopAfter(2))
    assert not workspace.model.exists()
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-00000008"]
    capsys.readouterr()
    shutil.rmtree(parent / "checkpoints")  # pruned: it is needed no more
    train(workspace, origin)
    assert "resumes after step 8" in capsys.readouterr().out
    assert same(weights(workspace), weights(whole[0]))


def test_a_loss_that_is_not_finite_is_no_dead_end(
    whole: tuple[Workspace, Path], project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copy_project(project, tmp_path / "run")
    step = DecoupledStep.__call__

    def explode(self: DecoupledStep, batch: object, mix: object, number: int) -> torch.Tensor:
        loss = step(self, batch, mix, number)  # type: ignore[arg-type]
        return loss * math.nan if number == 7 else loss

    with monkeypatch.context() as patch:
        patch.setattr(DecoupledStep, "__call__", explode)
        with pytest.raises(ZeroVLError) as caught:
            train(workspace)
    run = next(workspace.runs.iterdir()).name
    assert "loss is nan in step 7 (source " in str(caught.value)
    assert "the last checkpoint is of step 6: set a lower train.lr" in str(caught.value)
    assert f"`zerovl train --from {run}@6`" in str(caught.value)
    assert f"train.continue_from: {run}@6" in str(caught.value)
    train(workspace, f"train.continue_from={run}@6", "train.lr=0.0005")
    assert workspace.model.is_dir()


def test_without_a_checkpoint_the_message_does_not_speak_of_one(
    project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copy_project(project, tmp_path / "run")
    monkeypatch.setattr(DecoupledStep, "__call__", lambda *_: torch.tensor(math.inf))
    with pytest.raises(ZeroVLError, match=r"loss is inf in step 0 .*there is no checkpoint yet: set a lower train\.lr"):
        train(workspace)


@pytest.mark.parametrize("key", ["continue_from", "init_from"])
def test_what_is_not_there_is_told_with_what_is(key: str, whole: tuple[Workspace, Path], workspace: Workspace) -> None:
    name = whole[1].name
    with pytest.raises(ZeroVLError, match=rf"train\.{key}: nobody@3: there is no such run .*{name}"):
        train(workspace, f"train.{key}=nobody@3")
    with pytest.raises(ZeroVLError, match=rf"checkpoints of the steps 3, 6, 9, 12; name one of them, as {name}@12"):
        train(workspace, f"train.{key}={name}@5")


def test_a_run_without_steps_left_says_so(whole: tuple[Workspace, Path], workspace: Workspace) -> None:
    with pytest.raises(ZeroVLError, match=r"has 6 steps, and 6 lie behind; raise train\.epochs \(now 1\)"):
        train(workspace, f"train.continue_from={whole[1].name}@6", "train.epochs=1.0")


def test_weights_of_other_towers_are_refused(whole: tuple[Workspace, Path], workspace: Workspace) -> None:
    with pytest.raises(
        ZeroVLError, match=r"does not fit the model, 6 problems[\s\S]*name a checkpoint of the same towers"
    ):
        train(workspace, f"train.continue_from={whole[1].name}@6", "model.embed_dim=8")
    with pytest.raises(ZeroVLError, match="name the towers that the weights were trained with"):
        train(workspace, f"train.init_from={whole[1].name}@6", "model.embed_dim=8")


@pytest.mark.parametrize("form", ["{run}@12", "{runs}/{run}/checkpoints/step-00000012"])
def test_init_from_takes_the_weights_of_a_checkpoint(
    form: str, whole: tuple[Workspace, Path], workspace: Workspace
) -> None:
    """As from the bundle of the same step: the same weights, without moments, from step 0 on."""
    origin = form.format(run=whole[1].name, runs=workspace.runs)
    train(workspace, f"train.init_from={origin}", "train.epochs=1.0")
    from_checkpoint = weights(workspace)
    train(workspace, f"train.init_from={whole[0].model}", "train.epochs=1.0")
    assert same(from_checkpoint, weights(workspace))


def test_both_ways_to_start_are_one_too_many() -> None:
    with pytest.raises(ZeroVLError, match="both name weights to start from"):
        settings("train.init_from=model", "train.continue_from=x@3")


def on_two_ranks(ranks: Ranks, root: str, reference: str) -> int:
    params = settings("machine.ranks=2", f"train.continue_from={reference}")
    return training.train(params, Workspace(Path(root)), ranks, StopRequest())


def test_two_ranks_go_on_from_a_run_of_one(whole: tuple[Workspace, Path], workspace: Workspace) -> None:
    assert run_group(2, on_two_ranks, str(workspace.root), f"{whole[1].name}@6") == [0, 0]
    for name, expected in weights(whole[0]).items():
        torch.testing.assert_close(weights(workspace)[name], expected, rtol=1e-3, atol=1e-4)


def test_the_command_line_sets_it_for_all_ranks(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from zerovl.stages import train as stage
    from zerovl.training import one_rank

    monkeypatch.chdir(workspace.root)
    monkeypatch.setattr(params_file, "load", lambda *_: settings())
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the command takes SIGUSR1 for good
    seen: list[str] = []
    monkeypatch.setattr(stage, "run", lambda params, _: seen.append(params.train.continue_from))
    assert cli.main(["train", "--from", "3f2a@7"]) == 0
    assert seen == ["3f2a@7"]
    monkeypatch.setattr("sys.argv", ["worker", "params.yaml", "--from", "3f2a@7"])
    assert one_rank._params().train.continue_from == "3f2a@7"


def test_find_checkpoint_wants_one_run(workspace: Workspace, whole: tuple[Workspace, Path]) -> None:
    other = workspace.runs / f"{whole[1].name[:4]}ffff"
    other.mkdir()
    (other / "fingerprint.json").write_text("{}")
    with pytest.raises(ZeroVLError, match="2 runs begin so"):
        find_checkpoint(f"{whole[1].name[:4]}@3", workspace, "continue_from")
