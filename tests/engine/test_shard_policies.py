"""What a model split over ranks gathers in 16 bits, and what it refuses to; the split itself is in test_sharding."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support.towers import model
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine import sharding
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import gather_policy, gathered_as, is_sharded, shard
from zerovl.errors import ZeroVLError
from zerovl.model.blocks import blocks
from zerovl.params import MachineParams

CPU = torch.device("cpu")
ONE = Ranks(0, 1, CPU, OneRank())


def test_batch_normalisation_is_not_gathered_in_16_bits() -> None:
    with pytest.raises(ZeroVLError, match=r"machine\.shard_gathers low: the image tower test_resnet has batch norm"):
        shard(model("test_resnet"), ONE, gather_policy("low", Precision("bf16", CPU)))


def test_a_frozen_tower_is_not_gathered_whatever_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "init_device_mesh", lambda *_: None)
    dual = model("test_resnet")
    dual.freeze("image")
    dual.freeze("text")
    shard(dual, ONE, gather_policy("low", Precision("bf16", CPU)))
    assert not is_sharded(dual)


def test_norms_behind_frozen_blocks_take_no_weights_of_16_bits_on_a_cpu() -> None:
    dual = model(depth=2)
    dual.freeze_blocks("image", 1)
    words = r"machine\.shard_gathers low and train\.fine_tuning\.freeze_image_blocks 1: .*; set machine\.shard_gathers"
    with pytest.raises(ZeroVLError, match=words):
        shard(dual, ONE, gather_policy("low", Precision("bf16", CPU)))


@pytest.mark.parametrize(
    ("machine", "precision", "ranks", "expected"),
    [
        ({"shard_model": True, "shard_gathers": "low"}, "bf16", 2, "low"),
        ({"shard_model": True}, "bf16", 2, "float32"),
        ({"shard_model": False, "shard_gathers": "low"}, "bf16", 2, "float32"),
        ({"shard_model": True, "shard_gathers": "low"}, "float32", 2, "float32"),
        ({"shard_model": True, "shard_gathers": "low"}, "bf16", 1, "float32"),
    ],
)
def test_gathers_are_low_where_something_is_rounded(
    machine: dict[str, Any], precision: str, ranks: int, expected: str
) -> None:
    assert gathered_as(MachineParams.model_validate(machine), precision, replace(ONE, world_size=ranks)) == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit_tiny_patch16_224", 12), ("resnet50", 16), ("convnext_atto", 12), ("swin_tiny_patch4_window7_224", 12)],
)
def test_blocks_of_common_towers(name: str, count: int) -> None:
    import timm

    with torch.device("meta"):
        tower = timm.create_model(name, num_classes=0)
    assert len(blocks(tower)) == count
