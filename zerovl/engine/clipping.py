"""Clipping of the whole gradient by its norm (arXiv 1211.5063, sec. 3.2), sharded or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from zerovl.distributed.ranks import Ranks
from zerovl.engine.sharding import copies_of

_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip_gradients(model: nn.Module, max_norm: float, ranks: Ranks) -> Tensor:
    """Scale `.grad` in place so that its Euclidean norm over all parameters is at most `max_norm`.

    Call it once the gradient is summed over ranks and, under fp16, unscaled. Where the model is sharded
    this is a collective; the norm and the factor are the same on all ranks.

    Returns:
        The norm before clipping, a scalar on the device; not finite where a gradient is not, in which case nothing
        is scaled.
    """
    whole: list[Tensor] = []
    shards: list[Tensor] = []
    copies = 1
    for parameter in model.parameters():
        if isinstance(parameter.grad, DTensor):
            shards.append(parameter.grad.to_local())
            copies = copies_of(parameter.grad)
        elif parameter.grad is not None:
            whole.append(parameter.grad)
    norm = torch.nn.utils.get_total_norm(whole).to(ranks.device)
    if shards:
        square = ranks.collectives.sum(torch.nn.utils.get_total_norm(shards).square())
        norm = (norm.square() + square / copies).sqrt()
    # Whether to scale is left to the device, which the host need not wait for then: a factor of 1 changes nothing.
    exact = norm.double()  # so that the factor is rounded once
    factor = torch.where((exact > max_norm) & exact.isfinite(), max_norm / (exact + _EPSILON), 1.0)
    torch._foreach_mul_(whole + shards, factor.to(norm.dtype))
    return norm
