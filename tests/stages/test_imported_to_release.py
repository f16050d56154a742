"""A CLIP of transformers is imported, trained on, scored, released, tracked in MLflow, and exported again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import zerovl
from tests.support.clip_folders import make_clip
from tests.support.tiny_project import RECIPE, make_project
from zerovl import cli, params_file
from zerovl.commands import track
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.files import read_json, read_json_lines
from zerovl.interop.import_folder import import_folder
from zerovl.params import Params
from zerovl.release.model_card import _resized
from zerovl.tracking import following
from zerovl.training import run as training
from zerovl.workspace import Workspace

MLFLOW = find_spec("mlflow") is not None


@dataclass(frozen=True)
class Released:
    """A project whose model began as somebody else's, and is a release."""

    workspace: Workspace
    imported: Path
    params: Params
    store: str  # of MLflow


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """What `zerovl import`, and after it the stages train, evaluate and register, leave."""
    folder = tmp_path_factory.mktemp("imported")
    project, imported = folder / "project", folder / "imported"
    import_folder(make_clip(folder / "theirs"), imported)
    workspace = make_project(project)
    theirs = params_file.read_yaml(imported / "train.yaml")
    values = {
        **RECIPE,
        **theirs,
        "train": {**RECIPE["train"], **theirs["train"], "epochs": 0.5, "valid_checks": 1},  # type: ignore[dict-item]
        "evaluate": {"bootstrap": 20, "gallery": 2},
        "register": {"name": "birds", "gate": {"min_rsum": 0.0}},
    }
    params = params_file.from_recipe(values, [], "imported")
    params_file.write(params, project / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        store = f"sqlite:///{folder}/runs.sqlite"
        patch.setenv("MLFLOW_TRACKING_URI", store)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        patch.setattr(following, "_PATIENCE_SECONDS", 600.0)  # a machine that is busy imports for minutes
        patch.setattr(track, "bring_up_to_date", partial(following.bring_up_to_date, seconds=600.0))
        training.train(params, Workspace(), Ranks(0, 1, torch.device("cpu"), OneRank()), StopRequest())
        with patch.context() as untracked:  # a process less: the release's tells the scores too
            untracked.delenv("MLFLOW_TRACKING_URI")
            assert cli.main(["evaluate"]) == 0
        assert cli.main(["register"]) == 0
    return Released(workspace, imported, params, store)


def test_it_begins_as_the_model_that_it_was_and_keeps_its_resize(released: Released) -> None:
    before, after = zerovl.load(str(released.imported)), zerovl.load(str(released.workspace.model))
    assert after.transform == before.transform
    assert (after.transform.resize_mode, after.transform.interpolation) == ("shortest", "bicubic")
    assert after.model.architecture.image_options == before.model.architecture.image_options
    assert after.digest != before.digest  # it has learned
    assert _resized(released.params.model) == "The shorter side of pictures is resized to 36 pixels"


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
