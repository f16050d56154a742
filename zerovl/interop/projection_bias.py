"""A bias behind a projection, moved in front of it: the projections of a `DualEncoder` have none."""

from __future__ import annotations

import torch
from torch import Tensor

from zerovl.errors import ZeroVLError

_SOLVED = 1e-5  # of the largest component of the bias


def moved_before(weight: Tensor, bias: Tensor, origin: str) -> Tensor:
    """Return the smallest d (w,) with W d = b, so that W (h + d) = W h + b; `weight` is W (D, w), `bias` b (D,).

    Raises `ZeroVLError` that names `origin` where no d gives all of b.
    """
    projection, wanted = weight.detach().double(), bias.detach().double()
    moved: Tensor = torch.linalg.pinv(projection) @ wanted
    left = (projection @ moved - wanted).abs().max()
    if left > _SOLVED * wanted.abs().max():
        raise ZeroVLError(
            f"{origin}: the bias behind its projection of {weight.shape[1]} to {weight.shape[0]} features cannot be "
            "moved in front of it, and a model has no other place for it; save the model without that bias"
        )
    return moved.float()
