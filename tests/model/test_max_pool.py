"""Max pooling without graph: the values of torch's own, and its own where a graph is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from zerovl.model.max_pool import AxisMaxPool2d, pool_by_axis
from zerovl.model.towers import create_image_tower


def quick(pool: nn.MaxPool2d) -> nn.MaxPool2d:
    assert pool_by_axis(pool) == 1
    return pool


@pytest.fixture
def by_axis(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that the quick form was given."""
    shapes: list[tuple[int, ...]] = []
    own: Callable[[AxisMaxPool2d, Tensor], Tensor] = AxisMaxPool2d._pool

    def noted(self: AxisMaxPool2d, features: Tensor) -> Tensor:
        shapes.append(tuple(features.shape))
        return own(self, features)

    monkeypatch.setattr(AxisMaxPool2d, "_pool", noted)
    return shapes


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (3, 2, 13, 9), (1, 1, 3, 2), (2, 1, 1, 1), (0, 3, 8, 8)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 0), (5, 1, 2), ((3, 2), (2, 1), (1, 0)), (1, 2, 0)],
)
def test_values_are_those_of_torch(
    shape: tuple[int, ...],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    by_axis: list[tuple[int, ...]],
) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    reference = nn.MaxPool2d(kernel, stride, padding)
    with torch.no_grad():
        try:
            expected = reference(features)
        except RuntimeError:  # the pictures are smaller than a window
            with pytest.raises(RuntimeError):
                quick(nn.MaxPool2d(kernel, stride, padding))(features)
            return
        torch.testing.assert_close(quick(nn.MaxPool2d(kernel, stride, padding))(features), expected, rtol=0, atol=0)
    assert by_axis


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_is_not_finite_comes_through(dtype: torch.dtype) -> None:
    features = torch.randn(2, 2, 9, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    features[0, 0, 4, 4], features[0, 1, 0, 0], features[1, 0, 8, 8] = float("nan"), float("inf"), float("-inf")
    features[1, 1] = float("-inf")
    with torch.no_grad():
        found, expected = quick(nn.MaxPool2d(3, 2, 1))(features), nn.MaxPool2d(3, 2, 1)(features)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_large_pictures_go_in_pieces(by_axis: list[tuple[int, ...]]) -> None:
    features = torch.randn(5, 64, 56, 56, generator=torch.Generator().manual_seed(0))  # 0.8 MB each
    with torch.no_grad():
        torch.testing.assert_close(
            quick(nn.MaxPool2d(3, 2, 1))(features), nn.MaxPool2d(3, 2, 1)(features), rtol=0, atol=0
        )
    assert [shape[0] for shape in by_axis] == [2, 2, 1]


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool2d(3, 2, 1, dilation=2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d(2, 2, 1)],
    ids=["dilation", "ceil_mode", "half padding"],
)
def test_other_poolings_are_torchs(pool: nn.MaxPool2d, by_axis: list[tuple[int, ...]]) -> None:
    features = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pool(features)
        torch.testing.assert_close(quick(pool)(features), expected, rtol=0, atol=0)
    assert not by_axis


def test_a_graph_and_a_layout_of_channels_last_have_torchs(by_axis: list[tuple[int, ...]]) -> None:
    pool = quick(nn.MaxPool2d(3, 2, 1))
    features = torch.randn(2, 3, 12, 12, requires_grad=True)
    pool(features).sum().backward()
    assert features.grad is not None
    with torch.no_grad():
        pooled = pool(features.detach().contiguous(memory_format=torch.channels_last))
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    assert not by_axis


@pytest.fixture
def tower() -> nn.Module:
    options = {"layers": [1, 1, 1, 1], "channels": [64, 64, 64, 64]}
    return create_image_tower("resnet18", options, pretrained=False).eval()


def test_a_tower_gives_the_same_with_and_without_graph(tower: nn.Module, by_axis: list[tuple[int, ...]]) -> None:
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with_graph = tower(pixels)
    assert not by_axis
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), with_graph, rtol=0, atol=0)
    assert by_axis == [(3, 64, 32, 32)]


def test_an_exported_tower_has_one_pooling(tower: nn.Module) -> None:
    with torch.no_grad():
        program = torch.export.export(tower, (torch.zeros(2, 3, 64, 64),))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum("max_pool2d" in name for name in names) == 1
    assert not any("maximum" in name for name in names)
