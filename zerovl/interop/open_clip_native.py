"""Read open_clip's own towers, which are OpenAI's CLIP: the ViT as timm's, the text transformer as transformers' CLIP.

Keys and defaults are those of open_clip 3.3 (its model.py and transformer.py). ResNets and towers with options that
CLIP did not have are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import CLIPTextConfig

from zerovl.errors import ZeroVLError

IMAGE_TOWER = "vit_base_patch16_clip_224"  # of timm; all of its sizes are options
POOLING = "last"  # the end of text, which has the largest id
_VISION = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "head_width": 64, "mlp_ratio": 4.0}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
# What does not change the embeddings of these towers, or is what they have.
_HARMLESS = {
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "proj_type": ("linear",),
    "block_type": ("default",),
}
_IGNORED = (
    *("patch_dropout", "pad_id", "eos_id", "attn_pooler_queries", "attn_pooler_heads", "timm_pool", "timm_proj"),
    *("hf_tokenizer_name", "hf_proj_type", "hf_pooler_type", "hf_model_pretrained", "tokenizer_kwargs"),
)
_PARTS = ("weight", "bias")


def image_tower(
    stored: dict[str, Tensor], settings: dict[str, Any], activation: str, origin: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return timm's options and our weights of `visual.`; raises `ZeroVLError` for another tower than CLIP's ViT.

    `activation` is gelu or quick_gelu.
    """
    values = _settings(settings, _VISION, f"{origin}: vision_cfg")
    own = _reader(stored, "visual.", origin)
    weights = {
        "image_projection.weight": own("proj").T,  # (w, D) there
        "image_tower.cls_token": own("class_embedding")[None, None],  # (1, 1, w)
        "image_tower.pos_embed": own("positional_embedding")[None],  # (1, places, w)
        "image_tower.patch_embed.proj.weight": own("conv1.weight"),
    }
    names = {"ln_1": "norm1", "ln_2": "norm2", "attn.out_proj": "attn.proj", "mlp.c_fc": "mlp.fc1"}
    names["mlp.c_proj"] = "mlp.fc2"
    for part in _PARTS:
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


def text_tower(
    stored: dict[str, Tensor], settings: dict[str, Any], activation: str, origin: str
) -> tuple[CLIPTextConfig, dict[str, Tensor]]:
    """Return transformers' config and our weights of the text side; raises `ZeroVLError` for another than CLIP's.

    `activation` as in `image_tower`.
    """
    values = _settings(settings, _TEXT, f"{origin}: text_cfg")
    own = _reader(stored, "text." if "text.ln_final.weight" in stored else "", origin)
    weights = {
        "text_projection.weight": own("text_projection").T,  # (w, D) there
        "text_tower.embeddings.token_embedding.weight": own("token_embedding.weight"),
        "text_tower.embeddings.position_embedding.weight": own("positional_embedding"),
    }
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for part in _PARTS:
        weights[f"text_tower.final_layer_norm.{part}"] = own(f"ln_final.{part}")
        for number in range(values["layers"]):
            theirs, ours = f"transformer.resblocks.{number}", f"text_tower.encoder.layers.{number}"
            together = own(f"{theirs}.attn.in_proj_{part}").chunk(3)  # of query, key and value
            weights |= {f"{ours}.self_attn.{q}_proj.{part}": tensor for q, tensor in zip("qkv", together, strict=True)}
            weights |= {f"{ours}.{name}.{part}": own(f"{theirs}.{key}.{part}") for key, name in names.items()}
    last = values["vocab_size"] - 1
    config = CLIPTextConfig(
        vocab_size=values["vocab_size"],
        hidden_size=values["width"],
        intermediate_size=int(values["width"] * values["mlp_ratio"]),
        num_hidden_layers=values["layers"],
        num_attention_heads=values["heads"],
        max_position_embeddings=values["context_length"],
        hidden_act=activation,
        bos_token_id=last - 1,
        eos_token_id=last,
        pad_token_id=last,
    )
    return config, weights


def _settings(given: dict[str, Any], defaults: dict[str, Any], origin: str) -> dict[str, Any]:
    for key, value in given.items():
        known = key in defaults or key in _IGNORED or value in _HARMLESS.get(key, ())
        if not known and value not in (None, False, 0, ""):
            raise ZeroVLError(f"{origin}: {key} is {value!r}, which the towers of OpenAI's CLIP do not have")
    values = {key: given.get(key, default) for key, default in defaults.items()}
    if not isinstance(values["layers"], int):
        raise ZeroVLError(f"{origin}: layers is {values['layers']!r}: a ResNet, which is not read; ViTs are")
    return values


def _reader(stored: dict[str, Tensor], prefix: str, origin: str) -> Callable[[str], Tensor]:
    """Return a function that gives the weights of one side by open_clip's names, and names one that is missing."""

    def read(name: str) -> Tensor:
        if prefix + name not in stored:
            raise ZeroVLError(f"{origin}: the weights lack {prefix}{name}; fetch the folder again")
        return stored[prefix + name].float()

    return read
