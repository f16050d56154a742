"""CLIP and SigLIP of transformers are imported, trained on, scored, released and exported; CLIP is tracked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import zerovl
from tests.support.clip_folders import make_clip, make_siglip
from tests.support.tiny_project import RECIPE, make_project
from zerovl import cli, params_file
from zerovl.commands import track
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.files import read_json, read_json_lines
from zerovl.params import Params
from zerovl.release.model_card import _resized
from zerovl.tracking import following
from zerovl.training import run as training
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml

MLFLOW = find_spec("mlflow") is not None


@dataclass(frozen=True)
class Released:
    """A project whose model began as somebody else's, and is a release."""

    workspace: Workspace
    imported: Path
    params: Params
    store: str = ""  # of MLflow; "": not tracked


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """A CLIP whose training is tracked in MLflow."""
    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        store = f"sqlite:///{folder}/runs.sqlite"
        patch.setenv("MLFLOW_TRACKING_URI", store)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        patch.setattr(following, "_PATIENCE_SECONDS", 600.0)  # a machine that is busy imports for minutes
        patch.setattr(track, "bring_up_to_date", partial(following.bring_up_to_date, seconds=600.0))
        return replace(release(folder, make_clip, patch), store=store)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """A SigLIP, which goes on with its own loss."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return release(tmp_path_factory.mktemp("siglip"), make_siglip, patch)


def release(folder: Path, make: Callable[[Path], Path], patch: pytest.MonkeyPatch) -> Released:
    """What `zerovl import`, and after it the stages train, evaluate and register, leave."""
    project, imported = folder / "project", folder / "imported"
    assert cli.main(["import", str(make(folder / "theirs")), "--out", str(imported)]) == 0
    workspace = make_project(project)
    theirs = read_yaml(imported / "train.yaml")
    values = {
        **RECIPE,
        **theirs,
        "train": {**RECIPE["train"], **theirs["train"], "epochs": 0.5, "valid_checks": 1},  # type: ignore[dict-item]
        "evaluate": {"bootstrap": 20, "gallery": 2},
        "register": {"name": "birds", "gate": {"min_rsum": 0.0}},
    }
    params = params_file.from_recipe(values, [], "imported")
    params_file.write(params, project / "params.yaml")
    patch.chdir(project)
    training.train(params, Workspace(), Ranks(0, 1, torch.device("cpu"), OneRank()), StopRequest())
    with pytest.MonkeyPatch.context() as untracked:  # a process less: the release's tells the scores too
        untracked.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert cli.main(["evaluate"]) == 0
    assert cli.main(["register"]) == 0
    return Released(workspace, imported, params)


@pytest.mark.parametrize(
    ("which", "resize", "told"),
    [
        ("released", "shortest", "The shorter side of pictures is resized to 36 pixels"),
        ("siglip", "squash", "Pictures are resized to 32 x 32 pixels without regard to their shape"),
    ],
)
def test_it_begins_as_the_model_that_it_was_and_keeps_its_resize(
    which: str, resize: str, told: str, request: pytest.FixtureRequest
) -> None:
    released: Released = request.getfixturevalue(which)
    before, after = zerovl.load(str(released.imported)), zerovl.load(str(released.workspace.model))
    assert after.transform == before.transform
    assert (after.transform.resize_mode, after.transform.interpolation) == (resize, "bicubic")
    assert after.model.architecture.image_options == before.model.architecture.image_options
    assert hasattr(after.model, "logit_bias") == hasattr(before.model, "logit_bias") == (which == "siglip")
    assert after.digest != before.digest  # it has learned
    assert _resized(released.params.model) == told


@pytest.mark.parametrize("which", ["released", "siglip"])
def test_it_is_scored_before_and_after(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released: Released = request.getfixturevalue(which)
    raw, out = released.workspace.root / "raw" / "alpha", str(tmp_path / "out.npz")
    pairs = ["--pairs", str(raw / "valid_anno.csv"), "--images", str(raw / "valid")]
    scores = []
    for model in (released.imported, released.workspace.model):
        assert cli.main(["embed", str(model), *pairs, "--out", out]) == 0
        capsys.readouterr()
        assert cli.main(["score", out]) == 0
        scores.append(json.loads(capsys.readouterr().out)["rsum"])
    evaluated = read_json(released.workspace.evaluation_metrics)["sources"]["alpha"]["rsum"]
    assert scores[1] == pytest.approx(evaluated)
    assert 0 < scores[0] <= 600


@pytest.mark.skipif(not MLFLOW, reason="mlflow is not installed: pip install 'zerovl[tracking-mlflow]'")
def test_mlflow_has_its_parameters_curves_scores_and_release(released: Released) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(released.store)
    experiment = client.get_experiment_by_name("birds")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    (folder,) = (path for path in released.workspace.runs.iterdir() if (path / "metrics.jsonl").is_file())
    assert (run.info.run_name, run.info.status) == (folder.name, "FINISHED")
    assert run.data.params["train.init_from"] == str(released.imported)
    assert run.data.params["model.resize_mode"] == "shortest"
    rows = read_json_lines(folder / "metrics.jsonl")
    shown = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
    assert shown == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    scores = read_json(released.workspace.evaluation_scores)
    assert run.data.metrics["evaluation/RSUM"] == pytest.approx(scores["RSUM"])
    assert run.data.tags["zerovl.release"] == "birds@1"
    loaded = zerovl.load(run.data.tags["zerovl.release_uri"])  # the link leads to the model
    assert loaded.digest == zerovl.load(str(released.workspace.model)).digest


def test_it_is_exported_with_the_same_embeddings(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(released.workspace.root)
    assert cli.main(["export", "birds@1", "--to", "hugging-face", "--out", str(tmp_path / "theirs")]) == 0
    assert "apart" in capsys.readouterr().out  # compared with the library's own, and within what is allowed


def test_a_trained_siglip_goes_where_its_projection_has_a_place(
    siglip: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(siglip.workspace.root)
    assert siglip.params.train.loss == "sigmoid"
    assert cli.main(["export", "birds@1", "--to", "hugging-face", "--out", str(tmp_path / "theirs")]) == 2
    assert "its image projection has learned, and a SiglipModel has none; use --to onnx" in capsys.readouterr().err
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    assert cli.main(["export", "birds@1", "--to", "open-clip", "--out", str(tmp_path / "theirs")]) == 0
    assert "apart" in capsys.readouterr().out
