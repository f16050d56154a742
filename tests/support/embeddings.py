"""Comparing embeddings that were computed in batches of another size, in another order, or on another processor."""

from __future__ import annotations

import torch

# float32 rounds unit vectors by about 1e-7, a sum in another order by a few times that; the pictures and captions of
# `fake_world` are 3e-4 and more apart.
ROUNDING = 1e-5


def assert_same_embeddings(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare rows of length 1 up to rounding: an absolute bound, since a value near 0 has no relative one."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=ROUNDING)
