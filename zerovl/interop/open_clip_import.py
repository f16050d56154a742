"""Read a local folder of open_clip whose towers are timm's and a text tower of transformers.

The inverse of `open_clip_export`, for folders of others too: the config of the text tower may lie in a folder that
`hf_model_name` names, beside the rest, or in the local cache of Hugging Face. open_clip's own towers are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.interop.base import Sample, require
from zerovl.interop.imported import Imported
from zerovl.interop.open_clip_export import CONFIG, FAMILIES, POOLERS, PREFIXES
from zerovl.interop.standalone import zerovl_transform
from zerovl.model.architecture import Architecture
from zerovl.model.text_towers import named_text_config
from zerovl.model.weight_files import read_tensors

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_LIBRARY = "open_clip"
_LOCAL = "local-dir:"
_LEFT_OUT = ("text.transformer.embeddings.position_ids", "text.transformer.pooler.")  # open_clip uses neither


def read(folder: Path) -> Imported:
    """Return the model of a folder; raises `ZeroVLError` that names the key whose value is not understood."""
    config = read_json(folder / CONFIG)
    origin = str(folder / CONFIG)
    model, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
    vision, text = model["vision_cfg"], model["text_cfg"]
    _check(vision, text, origin)
    stored = read_tensors(_weights_file(folder))
    name, options = _image_tower(folder, vision, stored)
    text_config = named_text_config(_text_folder(folder, text["hf_model_name"]))
    weights = _renamed(stored, origin)
    weights["text_projection.weight"] = weights.get("text_projection.weight", torch.eye(model["embed_dim"]))
    bias = weights.get("logit_bias")
    poolings = {theirs: ours for ours, theirs in POOLERS.items()}
    architecture = Architecture(
        image_tower=name,
        image_options=options,
        text_config=text_config.to_dict(),
        embed_dim=model["embed_dim"],
        temperature=float(weights["temperature"]),
        learn_temperature=True,
        image_size=vision["image_size"],
        max_tokens=text.get("context_length", 77),
        pooling=poolings[text["hf_pooler_type"]],
        logit_bias=None if bias is None else float(bias),
        **_preprocessing(folder, preprocess, vision["image_size"], origin),
    )
    return Imported(architecture, weights, folder, _LIBRARY, lambda sample: _embed(folder, text_config, sample))


def _check(vision: dict[str, Any], text: dict[str, Any], origin: str) -> None:
    """Raise `ZeroVLError` for what has no counterpart here."""
    family_hint = f"; read are towers of timm with texts of {', '.join(FAMILIES)}"
    for values, key in ((vision, "timm_model_name"), (text, "hf_model_name")):
        if not values.get(key):
            raise ZeroVLError(f"{origin}: no {key}: one of open_clip's own towers, which is not read{family_hint}")
    allowed: list[tuple[dict[str, Any], str, Any, tuple[Any, ...]]] = [
        (vision, "timm_proj", "linear", ("linear",)),
        (vision, "timm_proj_bias", False, (False,)),
        (text, "hf_proj_type", "mlp", ("linear", None)),
        (text, "hf_pooler_type", "mean_pooler", tuple(POOLERS.values())),
    ]
    for values, key, default, known in allowed:
        if (found := values.get(key, default)) not in known:
            shown = ", ".join(str(value) for value in known)
            raise ZeroVLError(f"{origin}: {key} is {found!r}, which has no counterpart here; known is {shown}")
    if vision.get("timm_pool", "avg") in ("abs_attn", "rot_attn"):
        raise ZeroVLError(f"{origin}: timm_pool is {vision['timm_pool']!r}, a pooling of open_clip's own")


def _weights_file(folder: Path) -> Path:
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ZeroVLError(f"{folder}: none of {', '.join(_WEIGHTS)} in it; save the weights as safetensors")
    return found


def _image_tower(folder: Path, vision: dict[str, Any], stored: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Name and options of the timm tower; open_clip changes the pooling of a tower that was built with its own."""
    name, options = str(vision["timm_model_name"]), {}
    if name.startswith(_LOCAL):
        config = read_json(folder / name.removeprefix(_LOCAL) / "config.json")
        name, options = config["architecture"], dict(config.get("model_args") or {})
    pool = vision.get("timm_pool", "avg")
    if pool:
        options["global_pool"] = pool
        if "visual.trunk.norm.weight" in stored and pool.startswith("avg"):
            options["fc_norm"] = False  # a ViT that is built for the mean has its norm behind it
    return name, options


def _text_folder(folder: Path, name: str) -> str:
    for place in (folder / name, folder):
        if (place / "config.json").is_file():
            return str(place)
    return name


def _renamed(stored: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    weights = {"temperature": (-stored["logit_scale"].reshape(())).exp()}
    if "logit_bias" in stored:
        weights["logit_bias"] = stored["logit_bias"].reshape(())
    for name, tensor in stored.items():
        if name in ("logit_scale", "logit_bias") or name.startswith(_LEFT_OUT):
            continue
        ours = next((ours for ours, theirs in PREFIXES.items() if name.startswith(theirs)), None)
        if ours is None:
            raise ZeroVLError(f"{origin}: the weights have {name!r}; expected the prefixes {list(PREFIXES.values())}")
        weights[ours + name.removeprefix(PREFIXES[ours])] = tensor
    return weights


def _preprocessing(folder: Path, values: dict[str, Any], size: int, origin: str) -> dict[str, Any]:
    """The fields of the transform: as we wrote them beside the config, else as the config has them."""
    file = folder / zerovl_transform.FILE
    if file.is_file():
        ours = read_json(file)
        found = {"resize_size": ours["resize"], "resize_mode": ours["mode"], "interpolation": ours["interpolation"]}
        return found | {"mean": tuple(ours["mean"]), "std": tuple(ours["std"])}
    mode, interpolation = values.get("resize_mode", "shortest"), values.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation not in ("bilinear", "bicubic"):
        raise ZeroVLError(
            f"{origin}: preprocess_cfg has resize_mode {mode!r} and interpolation {interpolation!r}; known are "
            "shortest and squash, bilinear and bicubic"
        )
    return {
        "resize_size": size,
        "resize_mode": "shortest-rounded" if mode == "shortest" else mode,
        "interpolation": interpolation,
        "mean": tuple(values.get("mean", (0.48145466, 0.4578275, 0.40821073))),  # open_clip's constants.py
        "std": tuple(values.get("std", (0.26862954, 0.26130258, 0.27577711))),
    }


def _embed(folder: Path, text_config: Any, sample: Sample) -> tuple[Tensor, Tensor]:
    """Embed with open_clip, with its own transform where none of ours lies there."""
    require(_LIBRARY, "comparing with open_clip")
    import open_clip

    values = read_json(folder / CONFIG)["model_cfg"]
    vision = values["vision_cfg"] | {"timm_model_pretrained": False}  # all weights are in the folder
    text = values["text_cfg"] | {"hf_model_pretrained": False}
    if vision["timm_model_name"].startswith(_LOCAL):
        vision["timm_model_name"] = f"{_LOCAL}{folder.resolve() / vision['timm_model_name'].removeprefix(_LOCAL)}"
    text["hf_model_name"] = str(Path(_text_folder(folder, text["hf_model_name"])).resolve())
    place = f"{_LOCAL}{folder}"
    model, _, transform = open_clip.create_model_and_transforms(place, vision_cfg=vision, text_cfg=text)
    if (folder / zerovl_transform.FILE).is_file():
        transform = _our_transform(folder)
    with torch.inference_mode():
        images = model.eval().encode_image(torch.stack([transform(picture) for picture in sample.pictures]), True)
        return images, model.encode_text(open_clip.get_tokenizer(place)(sample.captions), True)


def _our_transform(folder: Path) -> Callable[[Image.Image], Tensor]:
    ours = zerovl_transform.Transform(folder)
    return lambda picture: torch.from_numpy(ours(picture))
