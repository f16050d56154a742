"""Build the dual encoder from parameters, or from a bundle's architecture. Never reaches for the network."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedConfig

from zerovl.errors import ZeroVLError
from zerovl.model import pooling
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.weight_files import load_image_weights
from zerovl.params import ModelParams

_POOLED = ("albert", "bert", "camembert", "mpnet", "roberta", "xlm-roberta")
FETCH_HINT = "run `zerovl fetch-weights` once on a machine with a network, or set pretrained to false"


def build(params: ModelParams, vocab_size: int, seed: int) -> DualEncoder:
    """Return a new model: published weights where `pretrained` or `weights` says so, else random ones from `seed`."""
    text_config = resolve_text_config(params, vocab_size)
    architecture = make_architecture(params, text_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image_tower = create_image_tower(architecture, params.image_tower.pretrained)
        if params.image_tower.weights:
            load_image_weights(image_tower, Path(params.image_tower.weights))
        if params.text_tower.pretrained:
            text_tower = pretrained_text_tower(params.text_tower.name)
        else:
            text_tower = create_text_tower(text_config)
        return DualEncoder(architecture, image_tower, text_tower)


def make_architecture(params: ModelParams, text_config: PreTrainedConfig) -> Architecture:
    """Return the description of the model that `params` ask for, with the whole config of the text tower."""
    return Architecture(
        image_tower=params.image_tower.name,
        image_options=params.image_tower.options,
        text_config=text_config.to_dict(),
        embed_dim=params.embed_dim,
        temperature=params.temperature,
        learn_temperature=params.learn_temperature,
        image_size=params.image_size,
        resize_size=params.resize_size,
        mean=params.mean,
        std=params.std,
        max_tokens=params.max_tokens,
        pooling=pooling.resolve(params.text_tower, text_config),
    )


def from_architecture(architecture: Architecture, seed: int = 0) -> DualEncoder:
    """Return the described model with random weights from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image_tower = create_image_tower(architecture, pretrained=False)
        return DualEncoder(architecture, image_tower, create_text_tower(text_config_from(architecture.text_config)))


Builder = Callable[[str, dict[str, Any], bool], nn.Module]


def create_image_tower(architecture: Architecture, pretrained: bool) -> nn.Module:
    """Return the image tower that `KIND:NAME` names, of timm where there is no kind.

    A tower takes normalised pixels (m, 3, H, W) and gives (m, w), with w in its attribute `num_features`.
    Raises `ZeroVLError` for a kind or name that is not known, options that do not fit, and weights that are not here.
    """
    kind, _, name = architecture.image_tower.rpartition(":")
    builder = IMAGE_BUILDERS.get(kind or "timm")
    if builder is None:
        raise ZeroVLError(
            f"model.image_tower.name: {architecture.image_tower!r}: there is no kind {kind!r}; use one of "
            f"{', '.join(IMAGE_BUILDERS)}, as in timm:resnet18"
        )
    return builder(name, dict(architecture.image_options), pretrained)


def timm_tower(name: str, options: dict[str, Any], pretrained: bool) -> nn.Module:
    """Build an image tower of timm, without classifier."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise ZeroVLError(f"model.image_tower.name: timm has no model {name!r}; close names: {close}")
    options.setdefault("num_classes", 0)
    try:
        with offline():
            tower: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        raise ZeroVLError(f"model.image_tower.options: {options} do not fit {name}: {error}") from None
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ZeroVLError(
            f"model.image_tower: weights of {name} are not on this machine ({error}); {FETCH_HINT}"
        ) from None
    return tower


# Image towers by kind; one of another library is a function here and a name in params.yaml.
IMAGE_BUILDERS: dict[str, Builder] = {"timm": timm_tower}


def create_text_tower(config: PreTrainedConfig) -> nn.Module:
    """Return a text tower with random weights; any family of transformers, by its config."""
    tower: nn.Module = AutoModel.from_config(config, dtype=torch.float32, **_without_pooler(config))
    return tower


def pretrained_text_tower(name: str) -> nn.Module:
    """Return a text tower with the published weights in a folder, or in the local cache of Hugging Face."""
    config = named_text_config(name)
    try:
        tower: nn.Module = AutoModel.from_pretrained(
            name, local_files_only=True, use_safetensors=True, dtype=torch.float32, **_without_pooler(config)
        )
    except OSError as error:
        raise ZeroVLError(
            f"model.text_tower: weights of {name} are not on this machine ({error}); {FETCH_HINT}"
        ) from None
    return tower


def _without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """The last hidden state is used (`pooling`): a pooler of the tower's own would be weights that never learn."""
    return {"add_pooling_layer": False} if config.model_type in _POOLED else {}


def named_text_config(name: str) -> PreTrainedConfig:
    """Return the config of a text tower in a folder or in the local cache; raises `ZeroVLError` where it is neither."""
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        place = "has no usable config.json" if Path(name).is_dir() else f"is not on this machine; {FETCH_HINT}"
        raise ZeroVLError(f"model.text_tower.name: {name} {place} ({error})") from None


def resolve_text_config(params: ModelParams, vocab_size: int) -> PreTrainedConfig:
    """Return the text tower's config; one from scratch takes the tokenizer's vocabulary."""
    tower = params.text_tower
    if tower.name:
        config = named_text_config(tower.name)
        if config.vocab_size < vocab_size:
            raise ZeroVLError(
                f"the tokenizer has {vocab_size} tokens, {tower.name} embeds {config.vocab_size}; "
                "set prepare.tokenizer_vocab to 0 to use the tower's own tokenizer"
            )
        return config
    known = set(BertConfig().to_dict())
    if unknown := sorted(set(tower.config) - known):
        raise ZeroVLError(f"model.text_tower.config: unknown keys {unknown}; see the fields of transformers.BertConfig")
    try:
        config = BertConfig(**{**tower.config, "vocab_size": vocab_size})
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {config.hidden_size} is not a multiple of "
                f"num_attention_heads {config.num_attention_heads}"
            )
    except (TypeError, ValueError) as error:
        raise ZeroVLError(f"model.text_tower.config: {error}") from None
    if config.max_position_embeddings < params.max_tokens:
        raise ZeroVLError(
            f"model.max_tokens {params.max_tokens} is more than max_position_embeddings "
            f"{config.max_position_embeddings} of the text tower; lower one or raise the other"
        )
    return config


def text_config_from(values: dict[str, Any]) -> PreTrainedConfig:
    """Return the config that an architecture holds as plain values."""
    values = dict(values)
    return AutoConfig.for_model(values.pop("model_type"), **values)


@contextmanager
def offline() -> Iterator[None]:
    """Weights come from the local cache or not at all: a training run never waits for a hub."""
    import huggingface_hub.constants as hub

    before = os.environ.get("HF_HUB_OFFLINE"), hub.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"], hub.HF_HUB_OFFLINE = "1", True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before[1]
        if before[0] is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before[0]
