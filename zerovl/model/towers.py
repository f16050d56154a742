"""Build the dual encoder from parameters, or from a bundle's architecture. Never reaches for the network.

`zerovl.model.text_towers`, and transformers with it, is imported where it is needed: most models that are only used
need neither.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zerovl.errors import ZeroVLError
from zerovl.model import hub_towers, pooling
from zerovl.model.architecture import Architecture, without_place
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.inference_towers import inference_text_tower
from zerovl.model.max_pool import pool_by_axis
from zerovl.model.timm_towers import timm_tower
from zerovl.model.undrawn import undrawn
from zerovl.model.weight_files import load_image_weights
from zerovl.params import ModelParams

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def build(params: ModelParams, vocab_size: int, seed: int, logit_bias: float | None = None) -> DualEncoder:
    """Return a new model: published weights where `pretrained` or `weights` says so, else random ones from `seed`.

    `logit_bias` is the start value of the bias that some losses learn; None: the model has none.
    """
    from zerovl.model.text_towers import create_text_tower, pretrained_text_tower, resolve_text_config

    image, text_config = params.image_tower, resolve_text_config(params, vocab_size)
    architecture = make_architecture(params, text_config, logit_bias)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image_tower = create_image_tower(image.name, image.options, image.pretrained)
        if image.weights:
            load_image_weights(image_tower, Path(image.weights))
        if params.text_tower.pretrained:
            text_tower = pretrained_text_tower(params.text_tower.name)
        else:
            text_tower = create_text_tower(text_config)
        return DualEncoder(architecture, image_tower, text_tower)


def make_architecture(
    params: ModelParams, text_config: PreTrainedConfig, logit_bias: float | None = None
) -> Architecture:
    """Return the description of the model that `params` ask for, with the whole config of the text tower.

    `logit_bias` as in `build`. Raises `ZeroVLError` for captions longer than the text tower reads, for a pooling that
    it cannot have, and for an image tower of a hub that is not on this machine.
    """
    from zerovl.model.text_towers import check_positions

    check_positions(params, text_config)
    image_tower, image_options = hub_towers.resolve(params.image_tower.name, params.image_tower.options)
    return Architecture(
        image_tower=image_tower,
        image_options=image_options,
        text_config=without_place(text_config.to_dict()),
        embed_dim=params.embed_dim,
        temperature=params.temperature,
        learn_temperature=params.learn_temperature,
        image_size=params.image_size,
        resize_size=params.resize_size,
        resize_mode=params.resize_mode,
        interpolation=params.interpolation,
        mean=params.mean,
        std=params.std,
        max_tokens=params.max_tokens,
        pooling=pooling.resolve(params.text_tower, text_config),
        logit_bias=logit_bias,
    )


def from_architecture(architecture: Architecture, seed: int = 0) -> DualEncoder:
    """Return the described model with random weights from `seed`."""
    from zerovl.model.text_towers import create_text_tower, text_config_from

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_config = text_config_from(architecture.text_config)
        return DualEncoder(architecture, described_image_tower(architecture), create_text_tower(text_config))


def to_be_filled(architecture: Architecture) -> DualEncoder:
    """Return the described model with no values in its weights, all of which are to be read, and which do not learn.

    Its text tower is computed without transformers where that is possible, and then has no dropout.
    """
    return undrawn(lambda: _without_values(architecture))


def _without_values(architecture: Architecture) -> DualEncoder:
    text_tower: nn.Module | None = inference_text_tower(architecture)
    if text_tower is None:
        from zerovl.model.text_towers import create_text_tower, text_config_from

        text_tower = create_text_tower(text_config_from(architecture.text_config))
    return DualEncoder(architecture, described_image_tower(architecture), text_tower)


Builder = Callable[[str, dict[str, Any], bool], nn.Module]


def described_image_tower(architecture: Architecture) -> nn.Module:
    """Return the image tower of an architecture with random weights; raises as `create_image_tower` does."""
    return create_image_tower(architecture.image_tower, architecture.image_options, pretrained=False)


def create_image_tower(name: str, options: dict[str, Any], pretrained: bool) -> nn.Module:
    """Return the image tower that `KIND:NAME` names, of timm where there is no kind.

    A tower takes normalised pixels (m, 3, H, W) and gives (m, w), with w in its attribute `num_features`.
    Raises `ZeroVLError` for a kind or name that is not known, options that do not fit, and weights that are not here.
    """
    kind, found, rest = name.partition(":")
    builder = IMAGE_BUILDERS.get(kind if found else "timm")
    if builder is None:
        raise ZeroVLError(
            f"model.image_tower.name: {name!r}: there is no kind {kind!r}; use one of {', '.join(IMAGE_BUILDERS)}, as "
            "in timm:resnet18"
        )
    tower = builder(rest if found else name, dict(options), pretrained)
    pool_by_axis(tower)
    return tower


# Image towers by kind; one of another library is a function here and a name in params.yaml.
IMAGE_BUILDERS: dict[str, Builder] = {
    "timm": timm_tower,
    **{kind: partial(hub_towers.hub_tower, kind) for kind in hub_towers.KINDS},
}
