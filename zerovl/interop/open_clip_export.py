"""A model as a local folder of open_clip: a timm tower, and a text tower of transformers or SigLIP's, as its own.

    open_clip_config.json         both towers, and the preprocessing that comes nearest among open_clip's own
    open_clip_model.safetensors   weights by open_clip's names
    image_tower/config.json       timm's, where the tower was built with options
    text_tower/config.json        of transformers; SigLIP's text tower is `text_cfg` itself (`open_clip_text`)
    tokenizer.json, tokenizer_config.json
    preprocess.json, zerovl_transform.py, picture_looks.py, zerovl_open_clip.py
                                  our transform, and a function that loads it all

The format is that of open_clip 3.3 (its factory.py, timm_model.py and hf_model.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from zerovl import picture_looks
from zerovl.errors import ZeroVLError
from zerovl.files import usual_mode, write_json
from zerovl.foreign_folders import OPEN_CLIP
from zerovl.interop import exported_note, open_clip_text, tokenizer_files
from zerovl.interop.base import Sample
from zerovl.interop.standalone import hand_along, zerovl_transform
from zerovl.model import export_forms
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder, image_width
from zerovl.model.encoder import Encoder
from zerovl.model.export_usage import USAGE

# Ours and theirs; the rest of a key is the tower's own. Temperature and bias are apart.
PREFIXES = {
    "image_tower.": "visual.trunk.",
    "image_projection.": "visual.head.proj.",
    "text_tower.": "text.transformer.",
    "text_projection.": "text.proj.",
}
CONFIG, WEIGHTS = OPEN_CLIP, "open_clip_model.safetensors"
IMAGE_TOWER, TEXT_TOWER = "image_tower", "text_tower"


class OpenClip:
    """open_clip's local folder (`local-dir:`)."""

    name = "open-clip"
    library = "open_clip"
    tolerance = 1e-5
    usage = USAGE[name]

    def check(self, encoder: Encoder) -> None:
        """Raise `ZeroVLError` for towers and poolings that open_clip does not have."""
        architecture, tower = encoder.model.architecture, encoder.model.image_tower
        if reason := export_forms.against_open_clip(architecture) or _reason_of_tower(architecture, tower):
            raise ZeroVLError(f"--to open-clip: the model cannot be one of open_clip: {reason}; use --to onnx")

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the folder."""
        from zerovl.interop.standalone import zerovl_open_clip  # open_clip is of the extra `export`

        architecture = encoder.model.architecture
        write_json(folder / CONFIG, _config(architecture))
        with usual_mode(folder / WEIGHTS):
            save_file(_weights(encoder.model), folder / WEIGHTS, {"format": "pt"})
        if architecture.image_options:
            (folder / IMAGE_TOWER).mkdir()
            write_json(folder / IMAGE_TOWER / "config.json", _timm_config(encoder.model))
        if not export_forms.is_siglip(architecture):
            (folder / TEXT_TOWER).mkdir()
            # open_clip masks what equals pad_token_id, so it must be the tokenizer's.
            text_config = architecture.text_config | {"pad_token_id": encoder.tokenizer.special.pad}
            write_json(folder / TEXT_TOWER / "config.json", text_config)
        tokenizer_files.write(encoder.tokenizer, folder)
        write_transform(architecture, folder)
        hand_along(zerovl_open_clip, folder)
        exported_note.write(encoder, folder)

    def embed(self, folder: Path, sample: Sample) -> tuple[Tensor, Tensor]:
        """Embed with open_clip."""
        from zerovl.interop.standalone.zerovl_open_clip import load

        model, transform, tokenizer = load(folder)
        with torch.inference_mode():
            images = model.encode_image(torch.stack([transform(picture) for picture in sample.pictures]), True)
            return images, model.encode_text(tokenizer(sample.captions), True)


def write_transform(architecture: Architecture, folder: Path) -> None:
    """Write our transform as numbers and as a file of Python that needs numpy and Pillow alone."""
    settings = {
        "resize": architecture.resize_size,
        "crop": architecture.image_size,
        "mode": architecture.resize_mode,
        "interpolation": architecture.interpolation,
        "mean": list(architecture.mean),
        "std": list(architecture.std),
    }
    write_json(folder / zerovl_transform.FILE, settings)
    for module in (picture_looks, zerovl_transform):
        hand_along(module, folder)


def _reason_of_tower(architecture: Architecture, tower: Any) -> str:
    """Return what only the built towers tell against open_clip; "" where nothing does."""
    if image_width(tower) != tower.num_features:
        return (
            f"its image tower {architecture.image_tower} gives {image_width(tower)} features behind its last "
            f"layer, and open_clip takes the {tower.num_features} before it"
        )
    return ""


def _config(architecture: Architecture) -> dict[str, Any]:
    name = architecture.image_tower.rpartition(":")[2]
    siglip = export_forms.is_siglip(architecture)
    model: dict[str, Any] = {
        "embed_dim": architecture.embed_dim,
        "vision_cfg": {
            "image_size": architecture.image_size,
            "timm_model_name": f"local-dir:{IMAGE_TOWER}" if architecture.image_options else name,
            "timm_model_pretrained": False,
            "timm_pool": "",  # the tower's own
            "timm_proj": "linear",
            "timm_proj_bias": False,
        },
        "text_cfg": open_clip_text.settings(architecture) if siglip else _transformers_settings(architecture),
    }
    if siglip:
        model |= {"custom_text": True, "quick_gelu": architecture.text_config["hidden_act"] == "quick_gelu"}
    if architecture.logit_bias is not None:
        model["init_logit_bias"] = architecture.logit_bias
    preprocess = {
        "size": architecture.image_size,
        "mean": list(architecture.mean),
        "std": list(architecture.std),
        "interpolation": "bilinear" if architecture.interpolation == "bilinear" else "bicubic",  # it has these two
        "resize_mode": architecture.resize_mode.partition("-")[0],
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def _transformers_settings(architecture: Architecture) -> dict[str, Any]:
    """Return `text_cfg` of a text tower of transformers."""
    return {
        "hf_model_name": TEXT_TOWER,
        "hf_tokenizer_name": TEXT_TOWER,
        "hf_model_pretrained": False,
        "hf_proj_type": "linear",
        "hf_pooler_type": export_forms.OPEN_CLIP_POOLERS[architecture.pooling],
        "context_length": architecture.max_tokens,
    }


def _timm_config(model: DualEncoder) -> dict[str, Any]:
    """What timm reads of a local folder to build a tower with options."""
    tower: Any = model.image_tower
    return {
        "architecture": model.architecture.image_tower.rpartition(":")[2],
        "num_classes": 0,
        "num_features": tower.num_features,
        "pretrained_cfg": {"input_size": [3, model.architecture.image_size, model.architecture.image_size]},
        "model_args": model.architecture.image_options,
    }


def _weights(model: DualEncoder) -> dict[str, Tensor]:
    """The weights by open_clip's names; `logit_scale` is the logarithm of 1 / temperature."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    renamed = {"logit_scale": -weights.pop("temperature").log()}
    if (bias := weights.pop("logit_bias", None)) is not None:
        renamed["logit_bias"] = bias
    if export_forms.is_siglip(model.architecture):
        text = {name: weights.pop(name) for name in list(weights) if name.startswith("text_")}
        renamed |= open_clip_text.written(text)
    for name, tensor in weights.items():
        prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
        renamed[PREFIXES[prefix] + name.removeprefix(prefix)] = tensor
    return renamed
