"""On a GPU the patches of a ViT are one matrix product: the loss and the gradient of the convolution."""

import pytest
import torch

from tests.support.device_runs import gradient_error, precision_of, ragged_batch
from tests.support.towers import gradients, model, plain_step, prepared
from zerovl.distributed.ranks import Ranks
from zerovl.engine.patches import PatchProjection
from zerovl.objective.mixup import Mix

pytestmark = pytest.mark.gpu


def test_a_step_has_the_gradient_of_the_convolution(device: torch.device, one_rank: Ranks) -> None:
    parts, precision, mix = ragged_batch(device), precision_of("float32", device), Mix("image", 0.4)
    with_convolution = model().to(device).train()
    expected_loss = plain_step(with_convolution, one_rank, precision, 3)(parts, mix, 7)
    dual = prepared(model(), one_rank).train()
    assert any(isinstance(module, PatchProjection) for module in dual.image_tower.modules())
    loss = plain_step(dual, one_rank, precision, 3)(parts, mix, 7)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert gradient_error(gradients(dual), gradients(with_convolution)) <= 2e-5
