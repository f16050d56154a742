"""Import checkpoints of the original ZeroVL code (`{state_dict, optimizer, meta, scaler}` in a .pth)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig

from zerovl.errors import ZeroVLError
from zerovl.interop import imported_bundle
from zerovl.model import bundle
from zerovl.model.architecture import Architecture, without_place
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import to_be_filled
from zerovl.model.weight_files import read_pickle

IMAGE_SIZE, RESIZE_SIZE, MAX_TOKENS = 224, 256, 25
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONSTANT_TEMPERATURE = 0.02

_PREFIXES = {
    "image_encoder.model.model.": "image_tower.",
    "text_encoder.model.model.": "text_tower.",
    "image_projection.linear.": "image_projection.",
    "text_projection.linear.": "text_projection.",
    "loss.temperature": "temperature",
}
_IGNORED = ("text_tower.embeddings.position_ids",)  # a buffer that older transformers saved


def import_checkpoint(file: Path, image_tower: str, text_tower: str, out: Path) -> None:
    """Write the bundle `out` from `file`, with a recipe that trains on from it.

    Raises `ZeroVLError` for any key that is not known or missing (see `rename`), and where `out` is there already.
    """
    imported_bundle.check_out(out)
    weights = rename(read_state_dict(file), str(file))
    model = build(weights, image_tower, text_tower)
    bundle.load_weights(model, weights, str(file))
    imported_bundle.write(model, CaptionTokenizer(text_tower, MAX_TOKENS), out)
    print(
        f"{out}: bundle of {image_tower} + {text_tower}, {len(weights)} tensors, from {file}. "
        f"To train on: {imported_bundle.next_command(out)}"
    )


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Read the `state_dict` of a checkpoint, by torch's restricted unpickler: tensors and plain values only.

    Raises `ZeroVLError` where there is none in it.
    """
    checkpoint = read_pickle(file)
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise ZeroVLError(f"{file}: no 'state_dict' in it; expected a checkpoint of the original ZeroVL code")
    return dict(checkpoint["state_dict"])


def rename(weights: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Rename the original's keys to ours. A key that fits nowhere is an error; a constant temperature is added."""
    renamed: dict[str, Tensor] = {}
    for original_key, tensor in weights.items():
        key = original_key.removeprefix("module.")
        prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None)
        if prefix is None:
            raise ZeroVLError(f"{origin}: unknown key {original_key!r}; expected prefixes {list(_PREFIXES)}")
        renamed[_PREFIXES[prefix] + key.removeprefix(prefix)] = tensor
    for key in _IGNORED:
        renamed.pop(key, None)
    temperature = renamed.get("temperature", torch.tensor(CONSTANT_TEMPERATURE))
    renamed["temperature"] = temperature.reshape(())
    return renamed


def build(weights: dict[str, Tensor], image_tower: str, text_tower: str, image_size: int = IMAGE_SIZE) -> DualEncoder:
    """Build the dual encoder that such weights (already renamed) were trained in, with no values in its own.

    Raises `ZeroVLError` for weights without projections and a folder without a config of the text tower.
    """
    if (projection := weights.get("image_projection.weight")) is None:
        raise ZeroVLError("checkpoint: missing image_projection.linear.weight; is it of the original ZeroVL code?")
    try:
        text_config = AutoConfig.from_pretrained(text_tower, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ZeroVLError(
            f"--text-tower {text_tower}: no config.json there ({error}); name a folder with one"
        ) from None
    architecture = Architecture(
        image_tower=image_tower,
        # A tower with learned positions must be built for the side that they were learned at.
        image_options={"img_size": image_size} if "image_tower.pos_embed" in weights else {},
        text_config=without_place(text_config.to_dict()),
        embed_dim=projection.shape[0],
        temperature=CONSTANT_TEMPERATURE,
        learn_temperature=True,
        image_size=image_size,
        resize_size=RESIZE_SIZE,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        max_tokens=MAX_TOKENS,
    )
    return to_be_filled(architecture)
