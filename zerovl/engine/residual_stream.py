"""Residual streams and norms of the towers in the precision of their products, with float32 weights.

Under autocast a LayerNorm is computed from float32 to float32, and a stream that begins in float32 (a ViT adds its
positions in float32) stays so through all blocks: most of what a step reads and writes then has twice the bytes, and
each norm is followed by a cast. Here the stream is cast once, before the first block, and norms take and give what
the stream is; PyTorch's kernel computes their statistics in float32 all the same. Outside of autocast nothing changes.

Shapes: m pairs, L tokens or patches, w width of a tower.
"""

from __future__ import annotations

from typing import Any

import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerovl.model.blocks import blocks
from zerovl.model.dual_encoder import DualEncoder

_PLAIN_NORMS = (nn.LayerNorm, timm.layers.LayerNorm)


class StreamNorm(nn.LayerNorm):
    """A LayerNorm that computes in the data type of autocast, where that is on."""

    def forward(self, stream: Tensor) -> Tensor:
        """Normalise (m, L, w)."""
        device = stream.device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(stream)
        dtype = torch.get_autocast_dtype(device)
        weight, bias = (None if part is None else part.to(dtype) for part in (self.weight, self.bias))
        with torch.autocast(device, enabled=False):
            return F.layer_norm(stream.to(dtype), self.normalized_shape, weight, bias, self.eps)


def lower_streams(model: DualEncoder) -> int:
    """Let both towers keep their streams in the precision of autocast, in place; returns how many norms do.

    Names of parameters stay. Norms of another kind (RMSNorm, a class of a tower's own) are left as they are.
    """
    norms = 0
    for tower in (model.image_tower, model.text_tower):
        for module in tower.modules():
            if type(module) in _PLAIN_NORMS:
                module.__class__ = StreamNorm
                norms += 1
        for block in blocks(tower)[:1]:
            block.register_forward_pre_hook(_cast_stream, with_kwargs=True)
    return norms


def _cast_stream(
    _block: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Cast what goes into the first block, (m, L, w): its first argument, or `hidden_states`."""
    if inputs:
        first, *rest = inputs
        return (_cast(first), *rest), options
    return inputs, {name: _cast(value) if name == "hidden_states" else value for name, value in options.items()}


def _cast(stream: Any) -> Any:
    if not isinstance(stream, Tensor) or not torch.is_autocast_enabled(stream.device.type):
        return stream
    return stream.to(torch.get_autocast_dtype(stream.device.type))
