"""Read a local folder of open_clip: towers of timm and of transformers here, its own in modules beside this one.

The inverse of `open_clip_export`, for folders of others too: the config of a text tower of transformers may lie in a
folder that `hf_model_name` names, beside the rest, or in the local cache of Hugging Face.
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
from zerovl.interop import open_clip_native, open_clip_resnet, open_clip_text, open_clip_tokenizer
from zerovl.interop.base import Sample, require
from zerovl.interop.imported import Imported, TextSide
from zerovl.interop.open_clip_export import CONFIG, PREFIXES
from zerovl.interop.standalone import zerovl_transform
from zerovl.log import logger
from zerovl.model.architecture import Architecture
from zerovl.model.export_forms import OPEN_CLIP_POOLERS
from zerovl.model.text import CaptionTokenizer
from zerovl.model.text_towers import named_text_config
from zerovl.model.weight_files import read_tensors

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_LIBRARY = "open_clip"
_LOCAL = "local-dir:"
_SCALARS = ("logit_scale", "logit_bias")
_LEFT_OUT = ("text.transformer.embeddings.position_ids", "text.transformer.pooler.")  # open_clip uses neither


def read(folder: Path) -> Imported:
    """Return the model of a folder; raises `ZeroVLError` that names the key whose value is not understood."""
    config = read_json(folder / CONFIG)
    origin = str(folder / CONFIG)
    model, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
    vision, text = model["vision_cfg"], model["text_cfg"]
    stored = read_tensors(_weights_file(folder))
    weights = _scalars(stored)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"  # of open_clip's own towers
    image_keys = {name: tensor for name, tensor in stored.items() if name.startswith("visual.")}
    text_keys = {name: tensor for name, tensor in stored.items() if name not in image_keys and name not in _SCALARS}
    if vision.get("timm_model_name"):
        name, options = _timm_tower(folder, vision, stored, origin)
        weights |= {"image_projection.weight": torch.eye(model["embed_dim"])} | _renamed(image_keys, origin)
    elif isinstance(vision.get("layers"), list):
        name, options, found = open_clip_resnet.image_tower(image_keys, vision, origin)
        weights |= found
    else:
        name = open_clip_native.IMAGE_TOWER
        options, found = open_clip_native.image_tower(image_keys, vision, activation, origin)
        weights |= found
    longest = text.get("context_length", 77)
    if text.get("hf_model_name"):
        side = _transformers_tower(folder, text, text_keys, model["embed_dim"], origin)
    else:
        tokenizer = CaptionTokenizer(folder, longest)
        side = open_clip_text.read(text_keys, text, activation, tokenizer, origin)
    weights |= side.weights
    bias, size = weights.get("logit_bias"), vision.get("image_size", 224)
    architecture = Architecture(
        image_tower=name,
        image_options=options,
        text_config=side.config.to_dict(),
        embed_dim=model["embed_dim"],
        temperature=float(weights["temperature"]),
        learn_temperature=True,
        image_size=size,
        max_tokens=longest,
        pooling=side.pooling,
        logit_bias=None if bias is None else float(bias),
        **_preprocessing(folder, preprocess, size, origin),
    )
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    cleaning = open_clip_tokenizer.cleaning(text, f"{origin}: text_cfg")
    return Imported(architecture, weights, folder, _LIBRARY, lambda sample: _embed(folder, sample), cleaning)


def _check(values: dict[str, Any], key: str, default: object, known: tuple[object, ...], origin: str) -> None:
    """Raise `ZeroVLError` for a value that has no counterpart here."""
    if (found := values.get(key, default)) not in known:
        shown = ", ".join(str(value) for value in known)
        raise ZeroVLError(f"{origin}: {key} is {found!r}, which has no counterpart here; known is {shown}")


def _weights_file(folder: Path) -> Path:
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ZeroVLError(f"{folder}: none of {', '.join(_WEIGHTS)} in it; save the weights as safetensors")
    return found


def _timm_tower(
    folder: Path, vision: dict[str, Any], stored: dict[str, Tensor], origin: str
) -> tuple[str, dict[str, Any]]:
    """Name and options of the timm tower; open_clip changes the pooling of a tower that was built with its own."""
    _check(vision, "timm_proj", "linear", ("linear", "none"), origin)
    _check(vision, "timm_proj_bias", False, (False,), origin)
    _check(vision, "timm_pool", "avg", ("", "avg", "avgmax", "max", "token", "map"), origin)
    name, options = str(vision["timm_model_name"]), {}
    if name.startswith(_LOCAL):
        config = read_json(folder / name.removeprefix(_LOCAL) / "config.json")
        name, options = config["architecture"], dict(config.get("model_args") or {})
    pool = vision.get("timm_pool", "avg")
    if pool:
        options["global_pool"] = pool
        built_for_it = vision.get("timm_proj") == "none"  # a ViT that is built for the mean has its norm behind it
        if "visual.trunk.norm.weight" in stored and pool.startswith("avg") and not built_for_it:
            options["fc_norm"] = False
    return name, options


def _transformers_tower(
    folder: Path, text: dict[str, Any], stored: dict[str, Tensor], width: int, origin: str
) -> TextSide:
    """The text tower of transformers, with the identity where open_clip has no projection."""
    _check(text, "hf_proj_type", "mlp", ("linear", None), origin)
    _check(text, "hf_pooler_type", "mean_pooler", tuple(OPEN_CLIP_POOLERS.values()), origin)
    poolings = {theirs: ours for ours, theirs in OPEN_CLIP_POOLERS.items()}
    weights = {"text_projection.weight": torch.eye(width)} | _renamed(stored, origin)
    config = named_text_config(_text_folder(folder, text["hf_model_name"]))
    return TextSide(config, poolings[text.get("hf_pooler_type", "mean_pooler")], weights)


def _text_folder(folder: Path, name: str) -> str:
    for place in (folder / name, folder):
        if (place / "config.json").is_file():
            return str(place)
    return name


def _scalars(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {"temperature": (-stored["logit_scale"].reshape(())).exp()}
    if "logit_bias" in stored:
        weights["logit_bias"] = stored["logit_bias"].reshape(())
    return weights


def _renamed(stored: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    weights = {}
    for name, tensor in stored.items():
        if name.startswith(_LEFT_OUT):
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
    if interpolation == "random":
        logger().warning(f"{origin}: interpolation is 'random', for training; bicubic is read, as open_clip evaluates")
        interpolation = "bicubic"
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


def _embed(folder: Path, sample: Sample) -> tuple[Tensor, Tensor]:
    """Embed with open_clip, with its own transform where none of ours lies there."""
    require(_LIBRARY, "comparing with open_clip")
    import open_clip

    values = read_json(folder / CONFIG)["model_cfg"]
    vision = values["vision_cfg"] | {"timm_model_pretrained": False}  # all weights are in the folder
    text = values["text_cfg"] | {"hf_model_pretrained": False}
    if (name := vision.get("timm_model_name") or "").startswith(_LOCAL):
        vision["timm_model_name"] = f"{_LOCAL}{folder.resolve() / name.removeprefix(_LOCAL)}"
    if text.get("hf_model_name"):
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
