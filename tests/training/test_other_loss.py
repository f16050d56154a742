"""Weights of a training with one loss start one with the other: the bias is of the loss."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.towers import model
from zerovl.model.architecture import Architecture
from zerovl.model.bundle import WEIGHTS
from zerovl.training.start import BundleStart


def test_a_bias_that_the_weights_lack_keeps_its_start_value_and_one_too_many_is_left_out(tmp_path: Path) -> None:
    softmax, sigmoid = model(), model(logit_bias=-10.0)
    with torch.no_grad():
        softmax.temperature.fill_(0.03)
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
