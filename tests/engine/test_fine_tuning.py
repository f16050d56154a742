"""Rates, decay and frozen blocks by part of the model; the defaults are one group, as the paper has it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModel

from tests.support.rank_groups import run_group
from tests.support.towers import RANKS, batch, decoupled_step, model, settings
from zerovl.distributed.ranks import Ranks
from zerovl.engine.model_options import freeze_first_blocks, prepare_model
from zerovl.engine.optimiser import make_optimiser, set_lr
from zerovl.engine.parameter_groups import REST, describe, learned_parameters
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import ShardedGradientSum, is_sharded
from zerovl.errors import ZeroVLError
from zerovl.model.blocks import first_modules, layers
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix
from zerovl.params import MachineParams, TrainParams

CPU = torch.device("cpu")


def tuned(dual: DualEncoder, ranks: Ranks = RANKS, machine: dict[str, Any] | None = None, **tuning: Any) -> TrainParams:
    """Prepare the model as a run does; returns its settings."""
    train, _ = settings(lr=1e-2, weight_decay=0.5, fine_tuning=tuning)
    freeze_first_blocks(dual, train.fine_tuning)
    prepare_model(dual, train.freeze, MachineParams.model_validate(machine or {}), ranks)
    dual.train()
    return train


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 4, "embed_dim": 24, "num_heads": 2}),
        ("eva02_tiny_patch14_224", {"img_size": 28, "depth": 3, "embed_dim": 24, "num_heads": 2}),
        ("resnet18", {"channels": [8, 8, 8, 8]}),
        ("test_mambaout", {}),
    ],
)
def test_layers_are_those_of_timm(name: str, options: dict[str, Any]) -> None:
    """timm knows the layers of each of its towers by patterns of names."""
    tower = timm.create_model(name, **options)
    reference = {}
    for group in param_groups_layer_decay(tower, layer_decay=0.5, weight_decay_exclude_1d=False):
        for parameter in group["params"]:
            reference[id(parameter)] = -round(math.log2(group["lr_scale"]))
    found = layers(tower)
    top = max(found.values())
    for parameter_name, parameter in tower.named_parameters():
        if found[parameter_name] < top:  # timm counts a norm behind the blocks to the last one
            assert top - found[parameter_name] == reference[id(parameter)], parameter_name


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_layers_of_text_towers(kind: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16}
    found = layers(AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=30, **sizes)))
    assert {layer for name, layer in found.items() if "embeddings" in name} == {0}
    assert {layer for name, layer in found.items() if "layer.1." in name} == {2}


def test_a_stage_goes_with_its_downsampling() -> None:
    tower = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16))
    found = layers(tower)
    assert {found[name] for name in found if name.startswith("stages.1.downsample")} == {2}
    assert {found[name] for name in found if name.startswith("stem")} == {0}
    still = first_modules(tower, 1)
    assert tower.get_submodule("stages.0.blocks.0") in still
    assert tower.get_submodule("stages.1.downsample") not in still


def test_by_default_there_is_one_group() -> None:
    dual = model(depth=2)
    optimiser = make_optimiser(dual, tuned(dual))
    (group,) = optimiser.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in dual.parameters()]
    assert group["weight_decay"] == 0.5
    set_lr(optimiser, 0.00123)
    assert group["lr"] == 0.00123  # not a bit of rounding


def test_every_parameter_has_its_rate_and_decay() -> None:
    dual = model(depth=2)
    train = tuned(
        dual,
        image_lr_scale=0.1,
        text_lr_scale=0.2,
        projection_lr_scale=2.0,
        temperature_lr_scale=0.05,
        layer_decay=0.5,
        decay_biases=False,
    )
    optimiser = make_optimiser(dual, train)
    set_lr(optimiser, 0.01)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimiser.param_groups for p in group["params"]}
    of = {name: found[id(p)] for name, p in dual.named_parameters()}
    assert of["image_tower.norm.weight"] == pytest.approx((0.001, 0.0))
    assert of["image_tower.blocks.1.mlp.fc1.weight"] == pytest.approx((0.0005, 0.5))
    assert of["image_tower.blocks.0.mlp.fc1.weight"] == pytest.approx((0.00025, 0.5))
    assert of["image_tower.blocks.0.mlp.fc1.bias"] == pytest.approx((0.00025, 0.0))
    assert of["image_tower.patch_embed.proj.weight"] == pytest.approx((0.000125, 0.5))
    assert of["text_tower.encoder.layer.0.output.dense.weight"] == pytest.approx((0.001, 0.5))
    assert of["text_tower.embeddings.word_embeddings.weight"] == pytest.approx((0.0005, 0.5))
    assert of["image_projection.weight"] == pytest.approx((0.02, 0.5))
    assert of["temperature"] == pytest.approx((0.001, 0.0))
    assert len(found) == len(list(dual.parameters()))


def test_parts_are_described() -> None:
    dual = model(depth=2)
    train = tuned(dual, image_lr_scale=0.1, layer_decay=0.5, decay_biases=False, freeze_text_blocks=1)
    image, rest = describe(learned_parameters(dual, train), 0.01)
    assert image.startswith("image tower: ")
    assert "lr 0.000125 to 0.001, weight decay 0.5 on " in image
    assert rest == f"{REST}: 257 parameters, lr 0.01, weight decay 0.5 on 256, weight decay 0 on 1"


def test_frozen_blocks_stay_as_they_are() -> None:
    dual = model(depth=2, proj_drop_rate=0.2, pos_drop_rate=0.2)
    train = tuned(dual, freeze_image_blocks=1)
    tower: Any = dual.image_tower
    assert not tower.pos_drop.training
    assert not any(module.training for module in tower.blocks[0].modules())
    assert all(module.training for module in tower.blocks[1].modules())
    assert dual.text_tower.training
    dual.eval()
    dual.train()
    assert not tower.blocks[0].training
    before = {name: p.detach().clone() for name, p in dual.named_parameters()}
    optimiser = make_optimiser(dual, train)
    decoupled_step(dual, RANKS, Precision("float32", CPU))(batch(), Mix(), 0)
    optimiser.step()
    still = {name for name, p in dual.named_parameters() if torch.equal(p, before[name])}
    prefixes = ("image_tower.patch_embed", "image_tower.cls_token", "image_tower.pos_embed", "image_tower.blocks.0.")
    assert still == {name for name in before if name.startswith(prefixes)}


def test_what_a_tower_cannot_do_is_refused() -> None:
    with pytest.raises(ZeroVLError, match="freeze_image_blocks: 3, and the image tower has 2 blocks; set it to 2"):
        tuned(model(depth=2), freeze_image_blocks=3)
    dual = model(depth=2)
    dual.image_tower = torch.nn.Linear(2, 2)
    with pytest.raises(ZeroVLError, match=r"layer_decay: 0\.5, and the image tower has no list of blocks"):
        make_optimiser(dual, tuned(dual, layer_decay=0.5))


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_steps(ranks: Ranks) -> dict[str, Tensor]:
    """Three steps with all of it; ranks share the batch."""
    dual = model(depth=3, embed_dim=18, proj_drop_rate=0.0)
    for module in dual.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    dual.double()
    tuning = {"image_lr_scale": 0.5, "layer_decay": 0.7, "decay_biases": False}
    machine = {"shard_model": True}
    train = tuned(dual, ranks, machine, freeze_image_blocks=1, freeze_text_blocks=1, **tuning)
    sums = ShardedGradientSum(dual, ranks) if is_sharded(dual) else None
    step = decoupled_step(dual, ranks, Precision("float32", CPU), 0, gradients=sums)
    optimiser = make_optimiser(dual, train)
    local = batch()[2 * ranks.rank : 2 * ranks.rank + 2] if ranks.world_size == 2 else batch()
    for number in range(3):
        optimiser.zero_grad(set_to_none=True)
        step(local, Mix("text", 0.3), number)
        set_lr(optimiser, 0.01)
        optimiser.step()
    return {name: whole(tensor).detach().clone() for name, tensor in dual.named_parameters()}


def test_sharded_over_two_ranks_it_is_the_same() -> None:
    alone = sharded_steps(RANKS)
    for found in run_group(2, sharded_steps):
        assert found.keys() == alone.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, alone[name], rtol=1e-6, atol=1e-8)
