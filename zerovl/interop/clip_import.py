"""Read the folders of `CLIPModel` and `SiglipModel` of transformers.

Their image towers compute what a ViT of timm computes with some options, so timm's it becomes: the keys are renamed,
the three projections of an attention are laid in one. Text towers stay those of transformers. What SigLIP has and a
`DualEncoder` has not: no projection of pictures, which is the identity here, and a bias behind that of captions, which
moves into the last norm before it (`projection_bias`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, CLIPModel, PreTrainedConfig, SiglipModel

from zerovl.errors import ZeroVLError
from zerovl.interop import clip_pictures
from zerovl.interop.base import Sample
from zerovl.interop.imported import Imported
from zerovl.interop.projection_bias import moved_before
from zerovl.log import logger
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
# timm's ViTs by the epsilon of their norms, which is no option; each has the parts of one family, the rest are options.
_TIMM = {1e-5: ("vit_base_patch16_clip_224", "clip"), 1e-6: ("vit_base_patch16_siglip_224", "siglip")}
_PARTS: dict[str, dict[str, Any]] = {
    "clip": {"class_token": True, "global_pool": "token", "pre_norm": True},
    "siglip": {"class_token": False, "global_pool": "map", "pre_norm": False},
}
# Parts of a block, and of the pooling head of SigLIP, by the names of transformers and of timm.
BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
HEAD = {"attention.out_proj": "proj", "layernorm": "norm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def read(folder: Path) -> Imported:
    """Return the model of a folder; raises `ZeroVLError` for what has no counterpart and for weights that miss some."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    family, vision, text = config.model_type, config.vision_config, config.text_config
    _check(vision, str(folder / "config.json"))
    theirs = load(folder, MODELS[family])
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
        image_tower=_TIMM[vision.layer_norm_eps][0],
        image_options=_options(vision, family),
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


def _check(vision: PreTrainedConfig, origin: str) -> None:
    sizes = (vision.image_size, vision.patch_size)
    if vision.hidden_act not in _ACTIVATIONS:
        raise ZeroVLError(f"{origin}: hidden_act {vision.hidden_act!r} is not one of {', '.join(_ACTIVATIONS)}")
    if vision.layer_norm_eps not in _TIMM:
        known = " or ".join(f"{epsilon:g}" for epsilon in _TIMM)
        raise ZeroVLError(
            f"{origin}: layer_norm_eps of vision_config is {vision.layer_norm_eps}; timm's towers have {known}, and no "
            "other is read"
        )
    if not all(isinstance(size, int) for size in sizes) or not getattr(vision, "vision_use_head", True):
        raise ZeroVLError(f"{origin}: vision_config is not of square pictures with a pooling head; {sizes}")


def load(folder: Path, kind: Any) -> Any:
    """Return a model of a kind of transformers; a weight that is missing there would be random: a `ZeroVLError`."""
    try:
        with no_load_report():
            model, report = kind.from_pretrained(
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


def _options(vision: PreTrainedConfig, family: str) -> dict[str, Any]:
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
        **({} if _TIMM[vision.layer_norm_eps][1] == family else _PARTS[family]),
    }


def _preprocessing(folder: Path, family: str, image_size: int) -> dict[str, Any]:
    """The fields of the transform; where the folder says nothing of pictures, that is said."""
    processor, file = clip_pictures.image_processor(folder, family, image_size), clip_pictures.file_of(folder)
    found = clip_pictures.fields(processor, image_size, str(file or folder))
    if file is None:
        mean, std = (", ".join(f"{value:.4g}" for value in found[name]) for name in ("mean", "std"))
        logger().warning(
            f"{folder}: no preprocessor_config.json, so pictures are prepared as transformers does for {family} where "
            f"nothing is said: resize_mode {found['resize_mode']} to {found['resize_size']}, {found['interpolation']}, "
            f"mean {mean}, std {std}; if the model was trained otherwise, put the file there and import again"
        )
    return found


def _embed(folder: Path, family: str, sample: Sample) -> tuple[Tensor, Tensor]:
    """Embed with transformers; SigLIP reads rows of one length without a mask."""
    model = load(folder, MODELS[family])
    processor = clip_pictures.image_processor(folder, family, model.config.vision_config.image_size)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    longest = model.config.text_config.max_position_embeddings
    padding = True if family == "clip" else "max_length"
    tokens = tokenizer(sample.captions, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    names = ("input_ids", "attention_mask") if family == "clip" else ("input_ids",)
    with torch.inference_mode():
        images = model.get_image_features(**processor(images=sample.pictures, return_tensors="pt")).pooler_output
        texts = model.get_text_features(**{name: tokens[name] for name in names}).pooler_output
    return l2_normalise(images), l2_normalise(texts)
