"""Towers that ranks split among them, with what a test needs to hold them against whole ones."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tests.support.towers import model, settings
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import MachineParams, TrainParams


def still(**values: Any) -> tuple[DualEncoder, TrainParams, MachineParams]:
    """Two blocks of odd width, without dropout: ranks would draw other masks than one process."""
    dual = model(depth=2, embed_dim=18, proj_drop_rate=0.0)
    for module in dual.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in dual.text_tower.encoder.layer:  # type: ignore[union-attr]
        layer.attention.self.dropout.p = 0.0
    return dual, *settings(lr=1e-2, **values)


def whole(tensor: Tensor) -> Tensor:
    """Return a split tensor whole, a collective, and any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
