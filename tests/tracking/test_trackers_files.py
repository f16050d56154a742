"""What TensorBoard and wandb have on disk of runs that were stopped and went on, by their own libraries."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.stops import StopAfter
from tests.support.tiny_project import make_project, recipe
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.files import read_json_lines
from zerovl.tracking import following
from zerovl.tracking.base import State
from zerovl.tracking.delivery import Delivery
from zerovl.tracking.facts import Facts, change_facts, read_facts, write_facts
from zerovl.tracking.tensorboard_files import TensorBoardFiles
from zerovl.tracking.wandb_runs import WandbRuns
from zerovl.training import run as training

TRACKED = "machine.tracking=[tensorboard]"


def test_a_training_that_goes_on_is_told_by_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorBoard reads back what was written; where its files are gone they are written again."""
    pytest.importorskip(
        "tensorboard", reason="tensorboard is not installed: pip install 'zerovl[tracking-tensorboard]'"
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    caplog.set_level(logging.INFO, "zerovl")
    workspace, alone = make_project(tmp_path), Ranks(0, 1, torch.device("cpu"), OneRank())
    usual = ("train.epochs=1.0", "train.valid_checks=1")
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(following.Senders, "close", lambda *_: said.append(caplog.text))
        training.train(recipe(*usual), workspace, alone, StopAfter(2))
    assert "interrupted by SIGTERM after step 2: saved in" in said[0]  # before any tracker is waited for
    monkeypatch.setattr(following, "_PATIENCE_SECONDS", 600.0)  # a machine that is busy imports for minutes
    training.train(recipe(*usual, TRACKED), workspace, alone, StopRequest())
    (run,) = workspace.runs.iterdir()
    rows = [(row["step"], pytest.approx(row["loss"])) for row in read_json_lines(run / "metrics.jsonl")]
    for _ in range(2):
        shown = EventAccumulator(str(run / "tensorboard"))
        shown.Reload()
        assert [(event.step, event.value) for event in shown.Scalars("loss")] == rows
        assert [event.step for event in shown.Scalars("valid_rsum")] == [5]
        text = shown.Tensors("parameters/text_summary")[0].tensor_proto.string_val[0].decode()
        assert "| train.batch_size | 16 |" in text
        shutil.rmtree(run / "tensorboard")
        Delivery("tensorboard", TensorBoardFiles("birds"), run).finish("finished")
    facts = read_facts(run)
    assert facts is not None
    assert facts.state == "finished"
    # After `zerovl evaluate`, and again with the release after `zerovl register`: the scores stand there once.
    for release in ({}, {"release": "birds@1"}):
        change_facts(run, scores={"evaluation/RSUM": 300.0}, notes=release)
        Delivery("tensorboard", TensorBoardFiles("birds"), run).finish("finished")
    shown = EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("evaluation/RSUM")] == [(facts.steps, 300.0)]


def test_a_run_in_wandb_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process leaves a folder for `wandb sync`, all of one id, also where several begin within a second."""
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'zerovl[tracking-wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "3f2a90c14be7d105"
    write_facts(run, Facts.of(recipe(), 2, {"data": "abc"}))
    states: tuple[State, ...] = ("interrupted", "interrupted", "interrupted", "finished")
    for step, state in enumerate(states):
        with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "loss": 1.0}) + "\n")
        change_facts(run, scores={"evaluation/RSUM": 500.0 + step})
        Delivery("wandb", WandbRuns("birds"), run).finish(state)
    kept = [path.read_bytes() for path in sorted((run / "wandb").glob("offline-run-*/run-3f2a90c14be7d105.wandb"))]
    assert len(kept) == len(states)
    assert [b"train.batch_size" in its for its in kept] == [True, False, False, False]
    assert all(b"loss" in its and b"evaluation/RSUM" in its for its in kept)
