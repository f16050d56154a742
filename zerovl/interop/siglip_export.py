"""A model with the towers of SigLIP as a `SiglipModel` of transformers: the inverse of `clip_import`.

A `SiglipModel` has no projection of pictures, and a row of captions is filled up to the place where they are cut. So a
model is one as long as its image projection is the identity that it was imported with, and reads rows of full length.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel
from transformers.activations import ACT2FN

from zerovl.interop import clip_import
from zerovl.model import export_forms
from zerovl.model.encoder import Encoder

TOKENIZER_GIVES = ("input_ids",)  # a mask would hide the padding that the tower was trained to see
_ACTIVATIONS = ("gelu_pytorch_tanh", "gelu", "quick_gelu")


def reason_against(encoder: Encoder) -> str:
    """Return why a model with SigLIP's text tower is not a `SiglipModel`; "" where it is one."""
    model, architecture = encoder.model, encoder.model.architecture
    if not _is_siglip(model.image_tower):
        return f"its image tower {architecture.image_tower} is not a ViT with SigLIP's pooling head"
    if reason := export_forms.against_hugging_face(architecture):
        return reason
    weight = model.image_projection.weight
    if weight.shape[0] != weight.shape[1] or not torch.equal(weight, torch.eye(len(weight))):
        return "its image projection has learned, and a SiglipModel has none"
    return ""


def convert(encoder: Encoder) -> SiglipModel:
    """Return the model of transformers with the weights of a model that `reason_against` has nothing against."""
    model, architecture = encoder.model, encoder.model.architecture
    text_config = {**architecture.text_config, "projection_size": architecture.embed_dim}
    theirs = SiglipModel(SiglipConfig(text_config=text_config, vision_config=_vision_config(model.image_tower)))
    weights = {f"vision_model.{name}": tensor for name, tensor in _vision_weights(model.image_tower).items()}
    weights |= {f"text_model.{name}": tensor for name, tensor in model.text_tower.state_dict().items()}
    weights["text_model.head.weight"] = model.text_projection.weight
    weights["text_model.head.bias"] = torch.zeros(architecture.embed_dim)
    weights["logit_scale"] = -model.temperature.log().reshape(1)
    weights["logit_bias"] = getattr(model, "logit_bias", torch.zeros(())).reshape(1)
    theirs.load_state_dict({name: tensor.detach() for name, tensor in weights.items()})  # strict
    return theirs


def _is_siglip(tower: nn.Module) -> bool:
    """Return whether a tower has the parts of SigLIP's, of the same shapes, and no others."""
    if not isinstance(tower, VisionTransformer) or tower.global_pool != "map":
        return False
    config = SiglipConfig(vision_config=_vision_config(tower))
    with torch.device("meta"):
        theirs = SiglipModel(config).vision_model
        expected = {name: tensor.shape for name, tensor in clip_import.image_tower(theirs).items()}
    return expected == {name: tensor.shape for name, tensor in tower.state_dict().items()}


def _vision_config(tower: Any) -> dict[str, Any]:
    block = tower.blocks[0]
    return {
        "image_size": tower.patch_embed.img_size[0],
        "patch_size": tower.patch_embed.patch_size[0],
        "hidden_size": tower.embed_dim,
        "num_hidden_layers": len(tower.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": _activation(block.mlp.act),
        "layer_norm_eps": tower.norm.eps,
    }


def _activation(module: nn.Module) -> str:
    """Return the name of transformers for what a module of timm computes; the nearest, and embeddings are compared."""
    values = torch.linspace(-3, 3, 13)
    return min(_ACTIVATIONS, key=lambda name: float((ACT2FN[name](values) - module(values)).abs().max()))


def _vision_weights(tower: Any) -> dict[str, Tensor]:
    """Return the weights of timm's ViT by the names of a vision model of SigLIP."""
    ours = tower.state_dict()
    theirs = {
        "embeddings.position_embedding.weight": ours["pos_embed"][0],  # (places, w)
        "embeddings.patch_embedding.weight": ours["patch_embed.proj.weight"],
        "embeddings.patch_embedding.bias": ours["patch_embed.proj.bias"],
        "head.probe": ours["attn_pool.latent"],
    }
    for part in ("weight", "bias"):
        theirs[f"post_layernorm.{part}"] = ours[f"norm.{part}"]
        together = [ours[f"attn_pool.{name}.{part}"] for name in ("q", "kv")]
        theirs[f"head.attention.in_proj_{part}"] = torch.cat(together)  # (3w, w) or (3w,)
        for name, own in clip_import.HEAD.items():
            theirs[f"head.{name}.{part}"] = ours[f"attn_pool.{own}.{part}"]
        for number in range(len(tower.blocks)):
            layer, block = f"encoder.layers.{number}", f"blocks.{number}"
            for name, tensor in zip("qkv", ours[f"{block}.attn.qkv.{part}"].chunk(3), strict=True):
                theirs[f"{layer}.self_attn.{name}_proj.{part}"] = tensor
            for name, own in clip_import.BLOCK.items():
                theirs[f"{layer}.{name}.{part}"] = ours[f"{block}.{own}.{part}"]
    return theirs
