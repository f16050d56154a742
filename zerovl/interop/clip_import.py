"""Read the folders of `CLIPModel` and `SiglipModel` of transformers.

Their image towers compute what a ViT of timm computes with some options, so timm's it becomes: the keys are renamed,
the three projections of an attention are laid in one. Text towers stay those of transformers. What SigLIP has and a
`DualEncoder` has not: no projection of pictures, which is the identity here, and a bias behind that of captions, which
moves into the last norm before it (`projection_bias`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel, PreTrainedConfig, SiglipModel

from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.interop.base import Sample
from zerovl.interop.imported import Imported
from zerovl.interop.projection_bias import moved_before
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import l2_normalise
from zerovl.model.text_towers import no_load_report

MODELS = {"clip": CLIPModel, "siglip": SiglipModel}  # by model_type of config.json
_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}  # of transformers and of timm
# timm's ViT that has the norms and the pooling of each, with the epsilon of its norms; the rest are options.
_TIMM = {"clip": ("vit_base_patch16_clip_224", 1e-5), "siglip": ("vit_base_patch16_siglip_224", 1e-6)}
# Parts of a block, and of the pooling head of SigLIP, by the names of transformers and of timm.
BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
HEAD = {"attention.out_proj": "proj", "layernorm": "norm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def read(folder: Path) -> Imported:
    """Return the model of a folder; raises `ZeroVLError` for what has no counterpart and for weights that miss some."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    family, vision, text = config.model_type, config.vision_config, config.text_config
    _check(vision, family, str(folder / "config.json"))
    theirs = _load(folder, family)
    width = vision.hidden_size
    weights = {f"image_tower.{name}": tensor for name, tensor in image_tower(theirs.vision_model).items()}
    hidden = {name: tensor for name, tensor in theirs.text_model.state_dict().items() if not name.startswith("head.")}
    if family == "clip":
        weights["image_projection.weight"] = theirs.visual_projection.weight.detach()
        weights["text_projection.weight"] = theirs.text_projection.weight.detach()
    else:
        weights["image_projection.weight"] = torch.eye(width)
        weights["text_projection.weight"] = theirs.text_model.head.weight.detach()
        norm = "final_layer_norm.bias"
        head = theirs.text_model.head
        hidden[norm] = hidden[norm] + moved_before(head.weight, head.bias, str(folder))
        weights["logit_bias"] = theirs.logit_bias.detach().reshape(())
    weights |= {f"text_tower.{name}": tensor for name, tensor in hidden.items()}
    weights["temperature"] = (-theirs.logit_scale.detach().reshape(())).exp()
    architecture = Architecture(
        image_tower=_TIMM[family][0],
        image_options=_options(vision),
        text_config=text.to_dict(),
        embed_dim=weights["text_projection.weight"].shape[0],
        temperature=float(weights["temperature"]),
        learn_temperature=True,
        image_size=vision.image_size,
        max_tokens=text.max_position_embeddings,
        pooling="last" if family == "clip" else "end",
        logit_bias=float(weights["logit_bias"]) if "logit_bias" in weights else None,
        **_preprocessing(folder, family, vision.image_size),
    )
    weights = {name: tensor.clone().contiguous() for name, tensor in weights.items()}
    return Imported(architecture, weights, folder, "transformers", lambda sample: _embed(folder, family, sample))


def image_tower(tower: Any) -> dict[str, Tensor]:
    """Return the weights of a vision model of CLIP or SigLIP by the names of timm's ViT."""
    theirs = tower.state_dict()
    ours = {
        "pos_embed": theirs["embeddings.position_embedding.weight"][None],  # (1, places, w)
        "patch_embed.proj.weight": theirs["embeddings.patch_embedding.weight"],
    }
    if "embeddings.class_embedding" in theirs:  # CLIP's
        ours["cls_token"] = theirs["embeddings.class_embedding"][None, None]  # (1, 1, w)
    else:
        ours["patch_embed.proj.bias"] = theirs["embeddings.patch_embedding.bias"]
        ours |= _pooling_head(theirs)
    for part in ("weight", "bias"):
        if f"pre_layrnorm.{part}" in theirs:
            ours[f"norm_pre.{part}"] = theirs[f"pre_layrnorm.{part}"]
        ours[f"norm.{part}"] = theirs[f"post_layernorm.{part}"]
        for number in range(tower.config.num_hidden_layers):
            layer, block = f"encoder.layers.{number}", f"blocks.{number}"
            projections = [theirs[f"{layer}.self_attn.{name}_proj.{part}"] for name in "qkv"]
            ours[f"{block}.attn.qkv.{part}"] = torch.cat(projections)  # (3w, w) or (3w,)
            for name, own in BLOCK.items():
                ours[f"{block}.{own}.{part}"] = theirs[f"{layer}.{name}.{part}"]
    return ours


def _pooling_head(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """SigLIP's attention of one learned query over all places; the query's projection stands first in theirs."""
    ours = {"attn_pool.latent": theirs["head.probe"]}
    width = theirs["head.probe"].shape[-1]
    for part in ("weight", "bias"):
        together = theirs[f"head.attention.in_proj_{part}"]  # (3w, w) or (3w,)
        ours[f"attn_pool.q.{part}"], ours[f"attn_pool.kv.{part}"] = together[:width], together[width:]
        for name, own in HEAD.items():
            ours[f"attn_pool.{own}.{part}"] = theirs[f"head.{name}.{part}"]
    return ours


def _check(vision: PreTrainedConfig, family: str, origin: str) -> None:
    epsilon = _TIMM[family][1]
    sizes = (vision.image_size, vision.patch_size)
    if vision.hidden_act not in _ACTIVATIONS:
        raise ZeroVLError(f"{origin}: hidden_act {vision.hidden_act!r} is not one of {', '.join(_ACTIVATIONS)}")
    if vision.layer_norm_eps != epsilon:
        raise ZeroVLError(
            f"{origin}: layer_norm_eps of vision_config is {vision.layer_norm_eps}; timm's tower has {epsilon}"
        )
    if not all(isinstance(size, int) for size in sizes) or not getattr(vision, "vision_use_head", True):
        raise ZeroVLError(f"{origin}: vision_config is not of square pictures with a pooling head; {sizes}")


def _load(folder: Path, family: str) -> Any:
    """The model in transformers; a weight that is missing there would be random, and is an error."""
    try:
        with no_load_report():
            model, report = MODELS[family].from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ZeroVLError(
            f"{folder}: no readable weights ({first}); a pytorch_model.bin is converted with "
            f"`zerovl convert-weights {folder}`"
        ) from None
    if missing := sorted(map(str, report["missing_keys"])):
        raise ZeroVLError(f"{folder}: the weights lack {', '.join(missing[:5])}; fetch the folder again")
    return model.eval()


def _options(vision: PreTrainedConfig) -> dict[str, Any]:
    width, inner = vision.hidden_size, vision.intermediate_size
    ratio = inner / width
    return {
        "img_size": vision.image_size,
        "patch_size": vision.patch_size,
        "embed_dim": width,
        "depth": vision.num_hidden_layers,
        "num_heads": vision.num_attention_heads,
        "mlp_ratio": ratio if int(width * ratio) == inner else (inner + 0.5) / width,  # timm rounds down
        "act_layer": _ACTIVATIONS[vision.hidden_act],
    }


def _preprocessing(folder: Path, family: str, image_size: int) -> dict[str, Any]:
    """The fields of the transform, as the image processor of the folder has them; raises `ZeroVLError` for others."""
    values: dict[str, Any] = {}
    for file, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (folder / file).is_file():
            found = read_json(folder / file)
            values = found.get(section, {}) if section else found
            break
    if values.get("do_normalize", True) and not {"image_mean", "image_std"} <= set(values):
        raise ZeroVLError(f"{folder}: no preprocessor_config.json with image_mean and image_std in it; fetch it too")
    size = values.get("size", image_size)
    if isinstance(size, int):
        size = {"shortest_edge": size} if family == "clip" else {"height": size, "width": size}
    sides = set(size.values())
    shortest = set(size) == {"shortest_edge"}
    resample = values.get("resample", 3)
    crop = values.get("crop_size", image_size) if values.get("do_center_crop", shortest) else size.get("height")
    crop = crop if isinstance(crop, int) else (crop or {}).get("height")
    if len(sides) != 1 or crop != image_size or resample not in _RESAMPLE or not values.get("do_resize", True):
        raise ZeroVLError(
            f"{folder}: its image processor (size {size}, crop {crop}, resample {resample}) does not make squares of "
            f"{image_size} by a bilinear or bicubic resize and a crop of the centre"
        )
    return {
        "resize_size": sides.pop(),
        "resize_mode": "shortest" if shortest else "squash",
        "interpolation": _RESAMPLE[resample],
        **_normalisation(values),
    }


def _normalisation(values: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return mean and deviation of values from 0 to 1 for an image processor's factor, mean and deviation."""
    # theirs: (255 x * factor - mean) / std = (x - mean / (255 factor)) / (std / (255 factor))
    factor = 255.0 * float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 255.0
    found = {}
    for name, without in (("mean", 0.0), ("std", 1.0)):
        given = values[f"image_{name}"] if values.get("do_normalize", True) else without
        channels = given if isinstance(given, list) else [given] * 3
        found[name] = tuple(channel / factor for channel in channels)
    return found


def _embed(folder: Path, family: str, sample: Sample) -> tuple[Tensor, Tensor]:
    """Embed with transformers; SigLIP reads rows of one length without a mask."""
    model = _load(folder, family)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    longest = model.config.text_config.max_position_embeddings
    padding = True if family == "clip" else "max_length"
    tokens = tokenizer(sample.captions, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    names = ("input_ids", "attention_mask") if family == "clip" else ("input_ids",)
    with torch.inference_mode():
        images = model.get_image_features(**processor(images=sample.pictures, return_tensors="pt")).pooler_output
        texts = model.get_text_features(**{name: tokens[name] for name in names}).pooler_output
    return l2_normalise(images), l2_normalise(texts)
