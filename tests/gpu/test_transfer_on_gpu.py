"""Inputs cross to the GPU once a step, on a stream of their own; the gradient is that of other copies."""

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.support.device_runs import gradient_error, precision_of, ragged_batch
from tests.support.towers import gradients, model, step_context
from zerovl.distributed.ranks import Ranks
from zerovl.engine.steps import DecoupledStep, StepContext
from zerovl.engine.transfer import NO_TRANSFER, ROOM, OwnStream, Transfer
from zerovl.objective.mixup import Mix

pytestmark = pytest.mark.gpu

MIX = Mix("image", 0.4)


def test_inputs_that_are_kept_cross_once(device: torch.device, one_rank: Ranks) -> None:
    dual = model().to(device).train()
    parts = ragged_batch(device)
    plain = step_context(dual, one_rank, precision_of("float32", device), 3)

    def step_with(transfer: Transfer) -> DecoupledStep:
        return DecoupledStep(
            StepContext(dual, one_rank, plain.precision, plain.loss, 3, plain.gradients, transfer=transfer)
        )

    def measured(transfer: Transfer) -> tuple[int, Tensor, dict[str, Tensor]]:
        """Copies to the GPU in a step that reads nothing back, its loss and its gradient."""
        step = step_with(transfer)
        step(parts, MIX, 6)  # warms up
        dual.zero_grad(set_to_none=True)
        torch.cuda.synchronize(device)
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            torch.cuda.set_sync_debug_mode("error")
            try:
                loss = step(parts, MIX, 7)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            torch.cuda.synchronize(device)
        copies = sum(event.count for event in profiled.key_averages() if "HtoD" in event.key)
        return copies, loss, gradients(dual)

    _, expected_loss, expected = measured(NO_TRANSFER)
    twice, *_ = measured(OwnStream(device, room=0))
    once, loss, found = measured(OwnStream(device, ROOM))
    assert twice - once == 3 * len(parts)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert gradient_error(found, expected) <= 2e-5
