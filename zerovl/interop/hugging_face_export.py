"""A model as a `VisionTextDualEncoder` of transformers, with image processor and tokenizer.

transformers reads timm towers through `TimmWrapperModel`. Of a text tower it takes what its pooler makes of the tokens:
CLIP's gives the last one as it is, as ours does. BERT's and its relatives' put token 0 through a Linear and tanh, where
ours has nothing. Such a pooler is written as x / 8192 and the projection as 8192 times ours: tanh of numbers that small
is its argument, to a part in a million for |x| up to 14, and in float32 and bfloat16 a power of two costs no digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPImageProcessor,
    TimmWrapperConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from zerovl.errors import ZeroVLError
from zerovl.files import usual_mode
from zerovl.interop import tokenizer_files
from zerovl.interop.base import Sample
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder, image_width, l2_normalise
from zerovl.model.encoder import Encoder
from zerovl.model.preprocess import INTERPOLATIONS
from zerovl.model.text_towers import text_config_from

WITH_POOLER = ("bert", "camembert", "mpnet", "roberta", "xlm-roberta")  # families whose pooler is a Linear and tanh
_SCALE = 2.0**13
_PREFIXES = {
    "image_tower.": "vision_model.timm_model.",
    "image_projection.": "visual_projection.",
    "text_tower.": "text_model.",
    "text_projection.": "text_projection.",
}


class HuggingFace:
    """`transformers.VisionTextDualEncoderModel`."""

    name = "hugging-face"
    library = "transformers"
    tolerance = 1e-5
    usage = (
        "from transformers import VisionTextDualEncoderModel, VisionTextDualEncoderProcessor\n"
        'model, processor = VisionTextDualEncoderModel.from_pretrained("."), '
        'VisionTextDualEncoderProcessor.from_pretrained(".", backend="pil")\n'
        'scores = model(**processor(text=["two skiers"], images=[picture], return_tensors="pt", padding=True, '
        "truncation=True)).logits_per_text"
    )

    def check(self, encoder: Encoder) -> None:
        """Raise `ZeroVLError` for towers and poolings that a `VisionTextDualEncoder` does not have."""
        architecture = encoder.model.architecture
        family, pooling = architecture.text_config["model_type"], architecture.pooling
        kind = architecture.image_tower.rpartition(":")[0]
        if kind not in ("", "timm"):
            raise _refusal(f"its image tower {architecture.image_tower} is not timm's")
        if architecture.image_options.get("num_classes", 0):
            raise _refusal("its image tower has a classifier, which transformers leaves out")
        if (pooling, family) != ("last", "clip_text_model") and not (pooling == "first" and family in WITH_POOLER):
            raise _refusal(
                f"its text tower {family} is pooled by {pooling!r}, and transformers has the last token of CLIP and "
                f"the first of {', '.join(WITH_POOLER)}"
            )
        border = architecture.resize_size - architecture.image_size
        if architecture.resize_mode == "shortest-rounded":
            raise _refusal("its pictures are cropped as torchvision does, and transformers rounds to the other side")
        if architecture.resize_mode == "squash" and round(border / 2) != border // 2:
            raise _refusal(
                f"pictures of {architecture.resize_size} cropped to {architecture.image_size} have no pixel in the "
                "middle, and transformers rounds it to the other side"
            )

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the folder."""
        model, architecture = encoder.model, encoder.model.architecture
        config = VisionTextDualEncoderConfig.from_vision_text_configs(
            _image_config(model), _text_config(encoder), projection_dim=architecture.embed_dim
        )
        theirs = VisionTextDualEncoderModel(config)
        theirs.load_state_dict(_weights(model))  # strict
        with usual_mode(folder / "model.safetensors"):
            theirs.save_pretrained(folder)
        _image_processor(architecture).save_pretrained(folder)
        tokenizer_files.write(encoder.tokenizer, folder)

    def embed(self, folder: Path, sample: Sample) -> tuple[Tensor, Tensor]:
        """Embed with transformers."""
        model = VisionTextDualEncoderModel.from_pretrained(folder, local_files_only=True).eval()
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        pixels = processor(images=sample.pictures, return_tensors="pt")
        tokens = tokenizer(sample.captions, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            images = model.get_image_features(**pixels).pooler_output
            texts = model.get_text_features(**tokens).pooler_output
        return l2_normalise(images), l2_normalise(texts)


def _refusal(reason: str) -> ZeroVLError:
    return ZeroVLError(
        f"--to hugging-face: the model is not a VisionTextDualEncoder: {reason}; use --to onnx, or --to open-clip"
    )


def _image_config(model: DualEncoder) -> TimmWrapperConfig:
    architecture = model.architecture
    options = {name: value for name, value in architecture.image_options.items() if name != "num_classes"}
    return TimmWrapperConfig(
        architecture=architecture.image_tower.rpartition(":")[2],
        model_args=options,
        hidden_size=image_width(model.image_tower),  # what the dual encoder asks for
        num_labels=0,
    )


def _text_config(encoder: Encoder) -> Any:
    """The text tower's config; CLIP finds the end of a caption by its id, which older configs have wrong."""
    values = dict(encoder.model.architecture.text_config)
    if values["model_type"] == "clip_text_model":
        values["eos_token_id"] = encoder.tokenizer.special.sep
    return text_config_from(values)


def _image_processor(architecture: Architecture) -> CLIPImageProcessor:
    size, crop = architecture.resize_size, architecture.image_size
    return CLIPImageProcessor(
        do_resize=True,
        size={"height": size, "width": size} if architecture.resize_mode == "squash" else {"shortest_edge": size},
        resample=INTERPOLATIONS[architecture.interpolation].value,
        do_center_crop=True,
        crop_size={"height": crop, "width": crop},
        do_rescale=True,
        do_normalize=True,
        image_mean=list(architecture.mean),
        image_std=list(architecture.std),
        do_convert_rgb=True,
    )


def _weights(model: DualEncoder) -> dict[str, Tensor]:
    """The weights by transformers' names; `logit_scale` is the logarithm of 1 / temperature."""
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    renamed = {"logit_scale": -weights.pop("temperature").log()}
    weights.pop("logit_bias", None)  # it moves all logits alike, and a VisionTextDualEncoder has none
    for name, tensor in weights.items():
        prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
        renamed[_PREFIXES[prefix] + name.removeprefix(prefix)] = tensor
    if model.architecture.pooling == "first":
        projection = renamed["text_projection.weight"]  # (D, w)
        width = projection.shape[1]
        renamed["text_model.pooler.dense.weight"] = torch.eye(width) / _SCALE
        renamed["text_model.pooler.dense.bias"] = torch.zeros(width)
        renamed["text_projection.weight"] = projection * _SCALE
    return renamed
