"""open_clip's own text transformer: CLIP's, read as transformers' CLIP, and SigLIP's, read and written.

CLIP's is causal and gives the end of text; SigLIP's sees the whole row, padding too, and gives its last place. Other
pairs of the two are refused. Keys and defaults are those of open_clip 3.3 (its model.py and transformer.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, PreTrainedConfig, SiglipTextConfig

from zerovl.errors import ZeroVLError
from zerovl.interop.imported import TextSide
from zerovl.interop.open_clip_native import PARTS, reader, settings_of
from zerovl.interop.projection_bias import moved_before
from zerovl.model.architecture import Architecture
from zerovl.model.text import CaptionTokenizer

_SETTINGS = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
_KIND = {"no_causal_mask": False, "pool_type": "argmax", "proj_bias": False, "norm_kwargs": None, "act_kwargs": None}
# The end of text has the largest id of CLIP's vocabulary.
_CLIP, _SIGLIP = (False, "argmax"), (True, "last")  # no_causal_mask and pool_type
_POOLINGS = {_CLIP: "last", _SIGLIP: "end"}
_TANH = {"approximate": "tanh"}
_ACTIVATIONS = {"gelu": None, "quick_gelu": None, "gelu_pytorch_tanh": _TANH}  # of transformers, and act_kwargs
# Of a block, by open_clip's names and by those of transformers.
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def read(
    stored: dict[str, Tensor], settings: dict[str, Any], activation: str, tokenizer: CaptionTokenizer, origin: str
) -> TextSide:
    """Return the text side that open_clip stored; raises `ZeroVLError` for another kind than the two.

    `activation` is gelu or quick_gelu; `tokenizer` is the model's, whose padding SigLIP's tower sees.
    """
    place = f"{origin}: text_cfg"
    values = settings_of(settings, _SETTINGS | _KIND, place)
    kind = bool(values["no_causal_mask"]), str(values["pool_type"])
    if kind not in _POOLINGS:
        raise ZeroVLError(
            f"{place}: pool_type is {kind[1]!r} and no_causal_mask {kind[0]}; read are argmax without no_causal_mask "
            "(CLIP's) and last with it (SigLIP's)"
        )
    own = reader(stored, "text." if "text.ln_final.weight" in stored else "", origin)
    weights = _tower(own, values["layers"])
    if values["proj_bias"]:
        projection, norm = own("text_projection.weight"), "text_tower.final_layer_norm.bias"  # (D, w)
        weights[norm] = weights[norm] + moved_before(projection, own("text_projection.bias"), place)
    else:
        projection = own("text_projection").T  # (w, D) there
    weights["text_projection.weight"] = projection
    sizes = _sizes(values, activation, place)
    if kind == _SIGLIP:
        special = tokenizer.special
        ids = {"pad_token_id": special.pad, "eos_token_id": special.sep, "bos_token_id": special.cls}
        config: PreTrainedConfig = SiglipTextConfig(**sizes, **ids, projection_size=projection.shape[0])
    else:
        last = values["vocab_size"] - 1
        config = CLIPTextConfig(**sizes, bos_token_id=last - 1, eos_token_id=last, pad_token_id=last)
    return TextSide(config, _POOLINGS[kind], weights)


def _tower(own: Callable[[str], Tensor], layers: int) -> dict[str, Tensor]:
    """Return the weights of the tower without its projection; `own` gives those of open_clip by their names."""
    weights = {
        "text_tower.embeddings.token_embedding.weight": own("token_embedding.weight"),
        "text_tower.embeddings.position_embedding.weight": own("positional_embedding"),
    }
    for part in PARTS:
        weights[f"text_tower.final_layer_norm.{part}"] = own(f"ln_final.{part}")
        for number in range(layers):
            theirs, ours = f"transformer.resblocks.{number}", f"text_tower.encoder.layers.{number}"
            together = own(f"{theirs}.attn.in_proj_{part}").chunk(3)  # of query, key and value
            weights |= {f"{ours}.self_attn.{q}_proj.{part}": tensor for q, tensor in zip("qkv", together, strict=True)}
            weights |= {f"{ours}.{name}.{part}": own(f"{theirs}.{key}.{part}") for key, name in _BLOCK.items()}
    return weights


def _sizes(values: dict[str, Any], activation: str, place: str) -> dict[str, Any]:
    """Return what both kinds of config of transformers have in common."""
    return {
        "vocab_size": values["vocab_size"],
        "hidden_size": values["width"],
        "intermediate_size": int(values["width"] * values["mlp_ratio"]),
        "num_hidden_layers": values["layers"],
        "num_attention_heads": values["heads"],
        "max_position_embeddings": values["context_length"],
        "hidden_act": _activation(values["act_kwargs"], activation, place),
        "layer_norm_eps": _epsilon(values["norm_kwargs"], place),
    }


def _activation(given: dict[str, Any] | None, usual: str, place: str) -> str:
    if not given:
        return usual
    if given != _TANH or usual != "gelu":
        raise ZeroVLError(f"{place}: act_kwargs is {given} of {usual}; read is {_TANH} of gelu")
    return "gelu_pytorch_tanh"


def _epsilon(given: dict[str, Any] | None, place: str) -> float:
    values = given or {}
    if set(values) - {"eps"}:
        raise ZeroVLError(f"{place}: norm_kwargs is {given}; read is eps alone")
    return float(values.get("eps", 1e-5))


def settings(architecture: Architecture) -> dict[str, Any]:
    """Return `text_cfg` of SigLIP's text tower; the tokenizer lies in the folder itself."""
    config = architecture.text_config
    width, inner = config["hidden_size"], config["intermediate_size"]
    ratio = inner / width
    found = {
        "context_length": config["max_position_embeddings"],
        "vocab_size": config["vocab_size"],
        "hf_tokenizer_name": ".",
        "width": width,
        "heads": config["num_attention_heads"],
        "layers": config["num_hidden_layers"],
        "mlp_ratio": ratio if int(width * ratio) == inner else (inner + 0.5) / width,  # open_clip rounds down
        "no_causal_mask": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": config["layer_norm_eps"]},
    }
    extra = _ACTIVATIONS[config["hidden_act"]]
    return found | ({"act_kwargs": extra} if extra else {})


def written(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the text side, given by the names of `DualEncoder`, by open_clip's names."""
    renamed = {
        "text.token_embedding.weight": weights["text_tower.embeddings.token_embedding.weight"],
        "text.positional_embedding": weights["text_tower.embeddings.position_embedding.weight"],
        "text.text_projection": weights["text_projection.weight"].T.contiguous(),  # (w, D) there
    }
    first = "text_tower.encoder.layers."
    layers = sorted({int(name.removeprefix(first).partition(".")[0]) for name in weights if name.startswith(first)})
    for part in PARTS:
        renamed[f"text.ln_final.{part}"] = weights[f"text_tower.final_layer_norm.{part}"]
        for number in layers:
            ours, theirs = f"{first}{number}", f"text.transformer.resblocks.{number}"
            together = [weights[f"{ours}.self_attn.{q}_proj.{part}"] for q in "qkv"]
            renamed[f"{theirs}.attn.in_proj_{part}"] = torch.cat(together)  # (3w, w) or (3w,)
            renamed |= {f"{theirs}.{key}.{part}": weights[f"{ours}.{name}.{part}"] for key, name in _BLOCK.items()}
    return renamed
