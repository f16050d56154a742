"""A model as transformers reads it: a `SiglipModel` (`siglip_export`), or a `VisionTextDualEncoder`.

In a `VisionTextDualEncoder` timm towers are a `TimmWrapperModel`. Of a text tower it takes what its pooler makes of the
tokens: CLIP's gives the last one as it is, as ours does. BERT's and its relatives' put token 0 through a Linear and
tanh, where ours has nothing. Such a pooler is written as x / 8192 and the projection as 8192 times ours: tanh of
numbers that small is its argument, to a part in a million for |x| up to 14, and in float32 and bfloat16 a power of two
costs no digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPImageProcessor,
    TimmWrapperConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from zerovl.errors import ZeroVLError
from zerovl.files import usual_mode
from zerovl.interop import exported_note, siglip_export, tokenizer_files
from zerovl.interop.base import Sample
from zerovl.model import export_forms
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder, image_width, l2_normalise
from zerovl.model.encoder import Encoder
from zerovl.model.export_usage import USAGE
from zerovl.model.preprocess import INTERPOLATIONS
from zerovl.model.text_towers import text_config_from

SCALE = 2.0**13
PREFIXES = {
    "image_tower.": "vision_model.timm_model.",
    "image_projection.": "visual_projection.",
    "text_tower.": "text_model.",
    "text_projection.": "text_projection.",
}


class HuggingFace:
    """`transformers.SiglipModel` or `transformers.VisionTextDualEncoderModel`."""

    name = "hugging-face"
    library = "transformers"
    tolerance = 1e-5
    usage = USAGE[name]

    def check(self, encoder: Encoder) -> None:
        """Raise `ZeroVLError` for towers, poolings and transforms that neither of the two has."""
        architecture = encoder.model.architecture
        if export_forms.is_siglip(architecture):
            kind, reason = "SiglipModel", siglip_export.reason_against(encoder)
        else:
            kind, reason = "VisionTextDualEncoder", export_forms.against_hugging_face(architecture)
        if reason := reason or export_forms.against_transformers_pictures(architecture):
            raise ZeroVLError(
                f"--to hugging-face: the model is not a {kind}: {reason}; use --to onnx, or --to open-clip"
            )

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the folder."""
        architecture = encoder.model.architecture
        if export_forms.is_siglip(architecture):
            theirs: Any = siglip_export.convert(encoder)
            tokenizer_files.write(encoder.tokenizer, folder, siglip_export.TOKENIZER_GIVES)
        else:
            theirs = _dual_encoder(encoder)
            tokenizer_files.write(encoder.tokenizer, folder)
        with usual_mode(folder / "model.safetensors"):
            theirs.save_pretrained(folder)
        _image_processor(architecture).save_pretrained(folder)
        exported_note.write(encoder, folder)

    def embed(self, folder: Path, sample: Sample) -> tuple[Tensor, Tensor]:
        """Embed with transformers."""
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        pixels = processor(images=sample.pictures, return_tensors="pt")
        tokens = tokenizer(sample.captions, padding="max_length", truncation=True, return_tensors="pt")
        with torch.inference_mode():
            images = model.get_image_features(**pixels).pooler_output
            texts = model.get_text_features(**tokens).pooler_output
        return l2_normalise(images), l2_normalise(texts)


def _dual_encoder(encoder: Encoder) -> VisionTextDualEncoderModel:
    model = encoder.model
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        _image_config(model), _text_config(encoder), projection_dim=model.architecture.embed_dim
    )
    theirs = VisionTextDualEncoderModel(config)
    theirs.load_state_dict(_weights(model))  # strict
    return theirs


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
        prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
        renamed[PREFIXES[prefix] + name.removeprefix(prefix)] = tensor
    if model.architecture.pooling == "first":
        projection = renamed["text_projection.weight"]  # (D, w)
        width = projection.shape[1]
        renamed["text_model.pooler.dense.weight"] = torch.eye(width) / SCALE
        renamed["text_model.pooler.dense.bias"] = torch.zeros(width)
        renamed["text_projection.weight"] = projection * SCALE
    return renamed
