"""What `tests/gpu` asks of the decoupled step, asked of a CPU: where no GPU is, those tests would age unseen."""

import pytest
import torch

from tests.gpu.test_steps_on_gpu import test_second_pass_and_gradient as second_pass_and_gradient
from zerovl.distributed.ranks import ALONE

CPU = torch.device("cpu")


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize(("precision", "low"), [("float32", False), ("bf16", True)])
def test_second_pass_and_gradient_on_a_cpu(precision: str, low: bool, kept: int) -> None:
    second_pass_and_gradient(precision, low, kept, CPU, ALONE)
