"""Training with the sigmoid loss, and with equal pairs as positives; a model's bias is of the loss."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from tests.support.tiny_project import copy_project, make_project, recipe, run_folder, set_params, train
from tests.support.towers import model
from zerovl.bundle_files import CONFIG, WEIGHTS
from zerovl.files import read_json_lines, write_json
from zerovl.model.architecture import Architecture
from zerovl.model.bundle import load_model
from zerovl.training import fingerprint
from zerovl.training.start import BundleStart


def test_sigmoid_and_equal_pairs_are_the_same_on_one_rank_and_on_two(tmp_path: Path) -> None:
    """The tiny project's captions repeat; an equal one may be of the other rank."""
    alone = make_project(tmp_path / "alone")
    together = copy_project(alone, tmp_path / "together")
    losses = []
    for workspace, ranks in ((alone, 1), (together, 2)):
        asked = "train.loss=sigmoid", "train.equal_pairs=positives", "train.epochs=0.5", f"machine.ranks={ranks}"
        set_params(workspace, *asked)
        train(workspace)
        rows = read_json_lines(run_folder(workspace) / "metrics.jsonl")
        assert rows[0]["logit_bias"] != rows[-1]["logit_bias"]
        losses.append([row["loss"] for row in rows])
        assert load_model(workspace.model).logit_bias.item() == pytest.approx(rows[-1]["logit_bias"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_name_of_a_run_knows_equal_pairs_only_where_they_are_asked_for(tmp_path: Path) -> None:
    architecture, data = model().architecture, SimpleNamespace(digest="d")
    described = [
        fingerprint.describe(recipe(*overrides), architecture, data, tmp_path, None, None)  # type: ignore[arg-type]
        for overrides in ((), ("train.equal_pairs=negatives",), ("train.equal_pairs=positives",))
    ]
    assert described[0] == described[1]
    assert "equal_pairs" not in described[0]["train"]
    assert described[2]["train"]["equal_pairs"] == "positives"


def test_a_bias_that_the_weights_lack_keeps_its_start_value_and_one_too_many_is_left_out(tmp_path: Path) -> None:
    softmax, sigmoid = model(), model(logit_bias=-10.0)
    with torch.no_grad():
        softmax.temperature.fill_(0.03)
    write_json(tmp_path / CONFIG, softmax.architecture.to_json())
    save_file(softmax.state_dict(), tmp_path / WEIGHTS)
    BundleStart(tmp_path).load_into(sigmoid)
    assert sigmoid.temperature.item() == softmax.temperature.item()
    assert sigmoid.logit_bias.item() == -10.0
    with torch.no_grad():
        sigmoid.logit_bias.fill_(-7.0)
    save_file(sigmoid.state_dict(), tmp_path / WEIGHTS)
    BundleStart(tmp_path).load_into(model())
    again = model(logit_bias=-10.0)
    BundleStart(tmp_path).load_into(again)
    assert again.logit_bias.item() == -7.0


def test_a_model_without_bias_is_described_as_ever() -> None:
    softmax, sigmoid = (model(logit_bias=bias).architecture for bias in (None, -10.0))
    assert "logit_bias" not in softmax.to_json()
    assert sigmoid.to_json()["logit_bias"] == -10.0
    for architecture in (softmax, sigmoid):
        assert Architecture.from_json(architecture.to_json(), "here") == architecture
