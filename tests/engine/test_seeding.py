"""The random state that a micro-batch begins with is that of `torch.manual_seed`, at less cost."""

from __future__ import annotations

import pytest
import torch

from tests.support.towers import CPU
from zerovl.engine.forward import random_seeds, seed_device


@pytest.mark.parametrize("seed", [0, 7, (1 << 63) - 1, random_seeds(1, 2, 0, 1)[0][0]])
def test_it_is_the_state_that_torch_sets(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.get_rng_state()
        torch.rand(1)
        seed_device(CPU, seed)
        assert torch.equal(torch.get_rng_state(), expected)
