"""Read open_clip's own image tower, which is the ViT of OpenAI's CLIP, as timm's; and its settings of any tower.

Keys and defaults are those of open_clip 3.3 (its model.py and transformer.py). A tower with options that CLIP did not
have is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from zerovl.errors import ZeroVLError

IMAGE_TOWER = "vit_base_patch16_clip_224"  # of timm; all of its sizes are options
_VISION = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "head_width": 64, "mlp_ratio": 4.0}
# What does not change the embeddings of these towers, or is what they have.
_HARMLESS = {
    "pool_type": ("tok",),
    "pos_embed_type": ("learnable",),
    "proj_type": ("linear",),
    "block_type": ("default",),
}
_IGNORED = (
    *("patch_dropout", "pad_id", "eos_id", "attn_pooler_queries", "attn_pooler_heads", "timm_pool", "timm_proj"),
    *("hf_tokenizer_name", "hf_proj_type", "hf_pooler_type", "hf_model_pretrained", "tokenizer_kwargs"),
)
PARTS = ("weight", "bias")


def image_tower(
    stored: dict[str, Tensor], settings: dict[str, Any], activation: str, origin: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return timm's options and our weights of `visual.`; raises `ZeroVLError` for another tower than CLIP's ViT.

    `activation` is gelu or quick_gelu.
    """
    values = settings_of(settings, _VISION, f"{origin}: vision_cfg")
    own = reader(stored, "visual.", origin)
    weights = {
        "image_projection.weight": own("proj").T,  # (w, D) there
        "image_tower.cls_token": own("class_embedding")[None, None],  # (1, 1, w)
        "image_tower.pos_embed": own("positional_embedding")[None],  # (1, places, w)
        "image_tower.patch_embed.proj.weight": own("conv1.weight"),
    }
    names = {"ln_1": "norm1", "ln_2": "norm2", "attn.out_proj": "attn.proj", "mlp.c_fc": "mlp.fc1"}
    names["mlp.c_proj"] = "mlp.fc2"
    for part in PARTS:
        weights[f"image_tower.norm_pre.{part}"] = own(f"ln_pre.{part}")
        weights[f"image_tower.norm.{part}"] = own(f"ln_post.{part}")
        for number in range(values["layers"]):
            theirs, ours = f"transformer.resblocks.{number}", f"image_tower.blocks.{number}"
            weights[f"{ours}.attn.qkv.{part}"] = own(f"{theirs}.attn.in_proj_{part}")
            weights |= {f"{ours}.{name}.{part}": own(f"{theirs}.{key}.{part}") for key, name in names.items()}
    options = {
        "img_size": values["image_size"],
        "patch_size": values["patch_size"],
        "embed_dim": values["width"],
        "depth": values["layers"],
        "num_heads": values["width"] // values["head_width"],
        "mlp_ratio": values["mlp_ratio"],
        "act_layer": activation,
    }
    return options, weights


def settings_of(given: dict[str, Any], defaults: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return the settings of a tower with defaults filled in; raises `ZeroVLError` for one that it does not have."""
    for key, value in given.items():
        known = key in defaults or key in _IGNORED or value in _HARMLESS.get(key, ())
        if not known and value not in (None, False, 0, ""):
            raise ZeroVLError(f"{origin}: {key} is {value!r}, which the towers that are read do not have")
    return {key: given.get(key, default) for key, default in defaults.items()}


def reader(stored: dict[str, Tensor], prefix: str, origin: str) -> Callable[[str], Tensor]:
    """Return a function that gives the weights of one side, in float32, by open_clip's names.

    It raises `ZeroVLError` for one that is missing; `origin` names the folder.
    """

    def read(name: str) -> Tensor:
        if prefix + name not in stored:
            raise ZeroVLError(f"{origin}: the weights lack {prefix}{name}; fetch the folder again")
        return stored[prefix + name].float()

    return read
