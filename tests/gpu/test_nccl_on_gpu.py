"""The collectives themselves, NCCL's on a GPU, with one rank: a run of one rank calls none of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.support.device_runs import gradient_error, precision_of, ragged_batch
from tests.support.towers import decoupled_step, gradients, model, plain_step
from zerovl.distributed.collectives import ProcessGroup
from zerovl.distributed.ranks import Ranks
from zerovl.engine.gradients import GradientSum
from zerovl.engine.steps import DecoupledStep, PlainStep
from zerovl.objective.mixup import Mix

pytestmark = pytest.mark.gpu

MIX = Mix("image", 0.3)
BUCKET = 1000  # elements: several buckets


class CountedGroup(ProcessGroup):
    """The process group, with the number of collectives that were waited for."""

    def __init__(self) -> None:
        self.calls = 0
        super().__init__(self._counted)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.calls += 1
        yield


@pytest.fixture
def group(process_group: None) -> CountedGroup:
    return CountedGroup()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_collectives_of_one_rank_give_what_they_were_given(
    dtype: torch.dtype, group: CountedGroup, device: torch.device
) -> None:
    values = torch.arange(12, device=device).reshape(3, 4).to(dtype)
    assert torch.equal(group.gather(values.T), values.T)  # not contiguous
    assert torch.equal(group.reduce_scatter(values), values)
    assert torch.equal(group.sum(values.clone()), values)
    started = values.clone()
    group.start_sum(started)()
    assert torch.equal(started, values)
    assert group.calls == 4


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", [plain_step, decoupled_step])
def test_both_steps_through_the_process_group(
    kind: Callable[..., PlainStep | DecoupledStep],
    precision: str,
    group: CountedGroup,
    device: torch.device,
    one_rank: Ranks,
) -> None:
    dual = model().to(device).train()
    parts = ragged_batch(device)
    expected_loss = kind(dual, one_rank, precision_of(precision, device), 3)(parts, MIX, 7)
    expected = gradients(dual)
    dual.zero_grad(set_to_none=True)
    summed = GradientSum(dual.parameters(), group, BUCKET)
    ranks = Ranks(0, 1, device, group)
    loss = kind(dual, ranks, precision_of(precision, device), 3, summed)(parts, MIX, 7)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-6)
    assert gradient_error(gradients(dual), expected) <= (1e-5 if precision == "float32" else 1e-2)
    buckets = sum(parameter.numel() for parameter in dual.parameters()) // BUCKET
    assert group.calls > 3 + min(3, buckets)  # of the loss: embeddings, value, gradient; then the buckets
