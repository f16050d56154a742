"""Read a folder of `VisionTextDualEncoderModel` of transformers: the inverse of `hugging_face_export`.

Its image tower is timm's (`TimmWrapperModel`). Of the text tower our models take the last hidden state, so what its
pooler does must be nothing: CLIP's gives the last token as it is, that of BERT and its relatives must be the one that
the export writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, VisionTextDualEncoderModel

from zerovl.errors import ZeroVLError
from zerovl.interop import clip_pictures
from zerovl.interop.clip_import import load
from zerovl.interop.hugging_face_export import PREFIXES, SCALE, HuggingFace
from zerovl.interop.imported import Imported
from zerovl.model.architecture import Architecture
from zerovl.model.export_forms import FAMILIES_WITH_POOLER
from zerovl.model.text_towers import PLACES_AFTER_PADDING

MODEL_TYPE = "vision-text-dual-encoder"
_CLIP, _TIMM = "clip_text_model", "timm_wrapper"
_POOLER = "text_model.pooler.dense."


def read(folder: Path) -> Imported:
    """Return the model of a folder; raises `ZeroVLError` for towers and poolers that have no counterpart here."""
    origin = str(folder / "config.json")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    vision, text = config.vision_config, config.text_config
    if vision.model_type != _TIMM or text.model_type not in (_CLIP, *FAMILIES_WITH_POOLER):
        raise ZeroVLError(
            f"{origin}: its towers are {vision.model_type} and {text.model_type}; read are {_TIMM} with {_CLIP} or one "
            f"of {', '.join(FAMILIES_WITH_POOLER)}"
        )
    stored = {name: tensor.detach() for name, tensor in load(folder, VisionTextDualEncoderModel).state_dict().items()}
    is_clip = text.model_type == _CLIP
    weights = {"temperature": (-stored.pop("logit_scale").reshape(())).exp()}
    if not is_clip:
        _check_pooler(stored.pop(f"{_POOLER}weight"), stored.pop(f"{_POOLER}bias"), origin)
        stored["text_projection.weight"] = stored["text_projection.weight"] / SCALE
    weights |= {_renamed(name): tensor.clone().contiguous() for name, tensor in stored.items()}
    file = clip_pictures.file_of(folder)
    if file is None:
        raise ZeroVLError(f"{folder}: no preprocessor_config.json in it; put the one of the model there")
    processor = clip_pictures.image_processor(folder, MODEL_TYPE, 0)
    size = (dict(processor.crop_size or {}) or dict(processor.size)).get("height", 0)
    architecture = Architecture(
        image_tower=vision.architecture,
        image_options=dict(vision.model_args or {}),
        text_config=text.to_dict(),
        embed_dim=config.projection_dim,
        temperature=float(weights["temperature"]),
        learn_temperature=True,
        image_size=size,
        max_tokens=_longest(folder, text),
        pooling="last" if is_clip else "first",
        **clip_pictures.fields(processor, size, str(file)),
    )
    return Imported(architecture, weights, folder, "transformers", lambda sample: HuggingFace().embed(folder, sample))


def _check_pooler(weight: Tensor, bias: Tensor, origin: str) -> None:
    """Raise `ZeroVLError` for a pooler that bends what the tower gives: a Linear of its own, and tanh."""
    if not torch.equal(weight, torch.eye(len(weight)) / SCALE) or bias.any():
        raise ZeroVLError(
            f"{origin}: the pooler of its text tower has learned, and there is none here; read is the one that "
            "`zerovl export --to hugging-face` writes"
        )


def _renamed(name: str) -> str:
    """Return our name of a weight."""
    ours, theirs = next(pair for pair in PREFIXES.items() if name.startswith(pair[1]))
    return ours + name.removeprefix(theirs)


def _longest(folder: Path, text: Any) -> int:
    """Return where captions are cut: as the tokenizer says, within what the tower reads."""
    said = AutoTokenizer.from_pretrained(folder, local_files_only=True).model_max_length
    offset = text.pad_token_id + 1 if text.model_type in PLACES_AFTER_PADDING else 0
    return int(min(said, text.max_position_embeddings - offset))
