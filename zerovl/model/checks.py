"""What is wrong with the towers that `params.yaml` asks for, told before any rank is started or any weight is read."""

from __future__ import annotations

from pathlib import Path

import torch

from zerovl.errors import ZeroVLError
from zerovl.model.architecture import Architecture
from zerovl.model.hub_towers import find_weights, is_hub_name
from zerovl.model.text_towers import resolve_text_config
from zerovl.model.towers import described_image_tower, make_architecture
from zerovl.params import ModelParams

SAFE, PICKLED = ("model.safetensors", "model.safetensors.index.json"), "pytorch_model.bin"


def check_towers(params: ModelParams, training_image_size: int = 0) -> None:
    """Raise `ZeroVLError` for towers that cannot be built, weights that are not there and inputs that do not fit.

    `training_image_size` 0 is that of the model.
    """
    text, weights = params.text_tower, params.image_tower.weights
    if weights and not Path(weights).is_file():
        raise ZeroVLError(
            f"model.image_tower.weights: {weights}: no such file; name one that exists, or leave it empty"
        )
    architecture = make_architecture(params, resolve_text_config(params, vocab_size=1))  # of the tokenizer: later
    if params.image_tower.pretrained and is_hub_name(params.image_tower.name):
        find_weights(params.image_tower.name)
    if text.pretrained:
        _check_safetensors(Path(text.name))
    check_image_sizes(architecture, params.image_size, training_image_size or params.image_size)


def check_image_sizes(architecture: Architecture, side: int, training_side: int) -> None:
    """Raise `ZeroVLError` where the image tower does not take squares of the model's side or of training's."""
    _check_image_size(architecture, "model.image_size", side)
    if training_side != side:
        _check_image_size(architecture, "train.image_size", training_side)


def _check_safetensors(folder: Path) -> None:
    """Weights as a pickle are not read; the cache of Hugging Face is not a folder, and is asked when it is read."""
    if folder.is_dir() and not any((folder / name).is_file() for name in SAFE):
        fix = f"convert it with `zerovl convert-weights {folder}`" if (folder / PICKLED).is_file() else "fetch it again"
        raise ZeroVLError(f"model.text_tower.name: {folder} has no {SAFE[0]}; {fix}")


def _check_image_size(architecture: Architecture, key: str, side: int) -> None:
    """Pictures of shapes alone go through the image tower: timm says itself which size it is built for.

    Two of them, since norms refuse a single value a channel, which one small picture may come to.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            described_image_tower(architecture).eval()(torch.empty(2, 3, side, side))
    except AssertionError as error:
        raise ZeroVLError(
            f"{key} {side} does not fit the image tower {architecture.image_tower} with the options "
            f"{architecture.image_options} ({error}); add img_size: {side} to model.image_tower.options (a ViT also "
            f"takes dynamic_img_size: true), or set {key} to the tower's own"
        ) from None
    except (RuntimeError, NotImplementedError):
        return  # a tower that needs numbers for its shapes is tried when it is built
