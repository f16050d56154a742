"""The sum of gradients over ranks: right, in one order, and on its way before the backward pass ends."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.support.rank_groups import run_group
from zerovl.distributed.ranks import Ranks
from zerovl.engine.gradients import GradientSum, OwnGradients, gradient_sum


class Recorded:
    """One of two ranks that hold the same: sums double, and the order of what happens is kept."""

    rank = 0
    world_size = 2

    def __init__(self) -> None:
        self.events: list[str] = []

    def start_sum(self, local: Tensor) -> Callable[[], object]:
        self.events.append(f"send {local.numel()}")
        local.mul_(2)
        return lambda: self.events.append(f"wait {local.numel()}")


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2))


def test_buckets_leave_during_the_last_backward_and_only_then() -> None:
    model, ranks = layers(), Recorded()
    unused = nn.Parameter(torch.ones(7))
    early = nn.Parameter(torch.ones(1))  # as a temperature: its gradient is there before the last backward
    sums = GradientSum([unused, early, *model.parameters()], ranks, bucket_elements=20)  # type: ignore[arg-type]
    model[0].weight.register_post_accumulate_grad_hook(lambda _: ranks.events.append("first layer done"))
    inputs = torch.randn(6, 3)
    for _ in range(2):  # the second step starts clean
        (3 * early).sum().backward()
        model(inputs[:3]).square().sum().backward()
        ranks.events.append("last")
        with sums.last_backward():
            model(inputs[3:]).square().sum().backward()
        sums.finish()
        events = ranks.events[ranks.events.index("last") :]
        # The last layer (5 x 2 + 2) with the bias before it, that bias's weight, the first layer with the early one.
        assert events[:3] == ["last", "send 17", "send 20"]
        assert events[3:] == ["first layer done", "send 17", "wait 17", "wait 20", "wait 17"]
        expected = layers()
        expected(inputs).square().sum().backward()
        for found, parameter in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(found.grad, 2 * parameter.grad)
        assert early.grad == 6
        assert unused.grad is None
        for parameter in (early, *model.parameters()):
            parameter.grad = None
        ranks.events.clear()


def _sum_on_a_rank(ranks: Ranks) -> tuple[list[Tensor], list[Tensor]]:
    model = layers().double()
    sums = gradient_sum(model, ranks.collectives)
    inputs = torch.randn(4 * ranks.world_size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = inputs[4 * ranks.rank : 4 * ranks.rank + 4]
    model(own[:2]).square().sum().backward()
    with sums.last_backward():
        model(own[2:]).square().sum().backward()
    sums.finish()
    whole = layers().double()
    whole(inputs).square().sum().backward()
    return [p.grad for p in model.parameters()], [p.grad for p in whole.parameters()]  # type: ignore[misc]


@pytest.mark.parametrize("world_size", [1, 3])
def test_every_rank_has_the_sum(world_size: int) -> None:
    for found, expected in run_group(world_size, _sum_on_a_rank):
        torch.testing.assert_close(found, expected)


def test_a_gradient_keeps_the_memory_layout_of_its_parameter() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    sums = GradientSum(model.parameters(), Recorded())  # type: ignore[arg-type]
    inputs = torch.randn(2, 3, 8, 8)
    with sums.last_backward():
        model(inputs).square().sum().backward()
    sums.finish()
    assert model.weight.stride() != model.weight.contiguous().stride()
    assert model.weight.grad.stride() == model.weight.stride()  # type: ignore[union-attr]
    (expected,) = torch.autograd.grad(model(inputs).square().sum(), [model.weight])
    torch.testing.assert_close(model.weight.grad, 2 * expected)


def test_one_rank_sends_nothing() -> None:
    assert isinstance(gradient_sum(layers(), type("One", (), {"world_size": 1})()), OwnGradients)
