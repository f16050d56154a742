"""Towers that ranks split among them, with what a test needs to hold them against whole ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tests.support.towers import CPU, batch, gradients, model, settings
from zerovl.distributed.ranks import Ranks
from zerovl.engine.model_options import prepare_model
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import ShardedGradientSum
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix
from zerovl.params import MachineParams, TrainParams

MIX = Mix("image", 0.3)


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


def one_step(ranks: Ranks, kind: Callable[..., Any], **options: Any) -> dict[str, Tensor]:
    """Return the loss and the whole gradients of a step of split towers; a rank has its half of the batch."""
    dual, train, machine = still(shard_model=True, **options)
    dual.double()
    prepare_model(dual, train.freeze, machine, ranks)
    dual.train()
    step = kind(dual, ranks, Precision("float32", CPU), 0, ShardedGradientSum(dual, ranks))
    parts = batch()
    local = parts[2 * ranks.rank : 2 * ranks.rank + 2]
    loss = step(local, MIX, 0)
    learned = [p for tower in (dual.image_tower, dual.text_tower) for p in tower.parameters() if p.requires_grad]
    assert all(isinstance(p, DTensor) for p in learned)
    return {"loss": loss, **{name: whole(gradient) for name, gradient in gradients(dual).items()}}
