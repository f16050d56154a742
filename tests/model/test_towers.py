"""Image towers by kind: timm is one, and another one needs no change anywhere else."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.towers import CPU, RANKS, TEXT, batch, decoupled_step, gradients, plain_step
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.model import towers
from zerovl.objective.mixup import Mix
from zerovl.params import ModelParams


class MeanColour(nn.Module):
    """A tower that no library has: the mean colour, made wider."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.wider = nn.Linear(3, width)

    def forward(self, pixels: Tensor) -> Tensor:
        wide: Tensor = self.wider(pixels.mean((2, 3)))
        return wide


def mean_colour(name: str, options: dict[str, Any], pretrained: bool) -> nn.Module:
    assert name == "plain"
    assert not pretrained
    return MeanColour(**options)


def settings(name: str, options: dict[str, Any]) -> ModelParams:
    text = {key: value for key, value in TEXT.items() if key not in ("model_type", "vocab_size")}
    return ModelParams.model_validate(
        {
            "image_tower": {"name": name, "options": options},
            "text_tower": {"config": text},
            "embed_dim": 8,
            "image_size": 32,
            "resize_size": 32,
            "max_tokens": 8,
        }
    )


def test_a_kind_of_one_s_own_is_built_trained_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(towers.IMAGE_BUILDERS, "toy", mean_colour)
    asked = settings("toy:plain", {"width": 6})
    first, second = (towers.build(asked, 40, seed=1).train() for _ in range(2))
    assert isinstance(first.image_tower, MeanColour)
    assert first.image_projection.weight.shape == (8, 6)
    for dual, make in ((first, plain_step), (second, decoupled_step)):
        make(dual, RANKS, Precision("float32", CPU), 3)(batch(), Mix("text", 0.4), 0)
    for name, gradient in gradients(first).items():
        torch.testing.assert_close(gradients(second)[name], gradient, rtol=1e-4, atol=1e-6)
    again = towers.from_architecture(first.architecture)
    assert again.image_projection.weight.shape == (8, 6)


def test_timm_s_towers_go_by_their_name_with_and_without_the_kind() -> None:
    options = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}
    for name in ("vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"):
        assert towers.build(settings(name, options), 40, seed=0).image_projection.weight.shape == (8, 16)


def test_unknown_kinds_and_names_are_told() -> None:
    with pytest.raises(ZeroVLError, match=r"image_tower\.name: 'keras:x': there is no kind 'keras'; use one of timm"):
        towers.build(settings("keras:x", {}), 40, seed=0)
    with pytest.raises(ZeroVLError, match=r"timm has no model 'resnet1818'; close names: \[.*'resnet18'"):
        towers.build(settings("resnet1818", {}), 40, seed=0)
