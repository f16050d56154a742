"""Patches as one matrix product: the function and the gradient of the convolution, in the same parameters."""

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.support.towers import model
from zerovl.engine.patches import PatchProjection, project_patches


def of(layer: nn.Conv2d, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What a layer gives, (m, D, h, w), and the gradients of pixels, weight and bias."""
    pixels = pixels.clone().requires_grad_()
    found = layer(pixels)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    wanted = [pixels, *layer.parameters()]
    return found, list(torch.autograd.grad(found, wanted, upstream))


@pytest.mark.parametrize("kernel", [4, (2, 5)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [(20, 20), (23, 21)])
def test_equals_the_convolution(kernel: int | tuple[int, int], bias: bool, side: tuple[int, int]) -> None:
    """Also where the patches do not fill the picture."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 7, kernel, stride=kernel, bias=bias).double()
    pixels = torch.randn(2, 3, *side, dtype=torch.float64)
    expected = of(layer, pixels)
    assert project_patches(nn.Sequential(layer)) == 1
    assert type(layer) is PatchProjection
    torch.testing.assert_close(of(layer, pixels), expected)


def test_a_vit_keeps_its_parameters() -> None:
    tower = model(depth=1).image_tower.eval()
    names, pixels = [name for name, _ in tower.named_parameters()], torch.rand(2, 3, 32, 32)
    expected = tower(pixels)
    assert project_patches(tower) == 1
    assert [name for name, _ in tower.named_parameters()] == names
    torch.testing.assert_close(tower(pixels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Conv2d(3, 8, 4, stride=4, padding=1),
        nn.Conv2d(3, 8, 2, stride=2, dilation=2),
        nn.Conv2d(3, 6, 2, stride=2, groups=3),
        nn.Conv2d(16, 8, 2, stride=2),
    ],
    ids=["overlap", "padding", "dilation", "groups", "no pixels"],
)
def test_other_convolutions_stay(layer: nn.Conv2d) -> None:
    assert project_patches(nn.Sequential(layer)) == 0
    assert type(layer) is nn.Conv2d


def test_a_resnet_has_none() -> None:
    assert project_patches(timm.create_model("resnet18")) == 0
