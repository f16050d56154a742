"""Load the model of this folder with open_clip, wherever the folder lies. Needs open_clip_torch and transformers.

    model, transform, tokenizer = zerovl_open_clip.load()
    image_emb = model.encode_image(transform(picture)[None], normalize=True)      # (1, D)
    text_emb = model.encode_text(tokenizer(["two skiers"]), normalize=True)       # (1, D)

open_clip looks for the configs of the towers where the process runs and not beside its own config; `towers` gives it
their places, also for `open_clip.create_model_and_transforms`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image

from zerovl.interop.standalone.zerovl_transform import Transform

HERE = Path(__file__).resolve().parent
TIMM_FOLDER = "local-dir:"  # what timm's names of folders begin with


def load(folder: Path | str = HERE) -> tuple[Any, Callable[[Image.Image], torch.Tensor], Any]:
    """Return the model in evaluation mode, the transform of a picture to (3, H, W), and the tokenizer."""
    model = open_clip.create_model(f"local-dir:{folder}", **towers(folder))
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    tokenizer.clean_fn = str  # the model has learned from captions as they are; open_clip would rewrite some
    transform = Transform(folder)
    return model.eval(), lambda picture: torch.from_numpy(transform(picture)), tokenizer


def towers(folder: Path | str = HERE) -> dict[str, Any]:
    """Return the settings of both towers with the whole paths of their configs."""
    config = json.loads((Path(folder) / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    vision, text = config["vision_cfg"], config["text_cfg"]
    name = vision["timm_model_name"]
    if name.startswith(TIMM_FOLDER):
        vision["timm_model_name"] = f"{TIMM_FOLDER}{Path(folder).resolve() / name.removeprefix(TIMM_FOLDER)}"
    if "hf_model_name" in text:  # not of SigLIP's text tower, which is open_clip's own
        text["hf_model_name"] = str(Path(folder).resolve() / text["hf_model_name"])
    return {"vision_cfg": vision, "text_cfg": text}
