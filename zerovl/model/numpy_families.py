"""Say what differs between the families of text towers that are computed with NumPy alone.

Numbers are those of transformers' own towers, its modules `models/FAMILY/modeling_FAMILY.py`.

Shapes: `L` tokens, `w` width of the tower, `h` heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zerovl.model.numpy_layers import Floats, Layers, Names
from zerovl.model.text import Ids

Config = Mapping[str, Any]
Weights = Mapping[str, Floats]


@dataclass(frozen=True)
class Family:
    """What a tower of a family is made of and does."""

    words: str  # embedding of tokens
    places: str  # embedding of places
    names: Names
    run: Callable[[Layers, Floats, Floats], Floats]  # all layers, on embedded tokens and what is added to scores
    bias: Callable[[Weights, int], Floats]  # that, for L tokens: (L, L) or (h, L, L)
    place: Callable[[Ids, Config], Ids]  # of each token of a row; (L,) -> (L,)
    row: Callable[[Ids, Config], Ids]  # what it reads of a caption
    usual: Callable[[Config], Config]  # its config by the keys of BERT's
    poolings: tuple[str, ...]  # names of zerovl/model/pooling.py that it has
    tables: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # other embeddings, and the keys of their sizes
    kind: str | None = None  # the one of these whose first row is added to each token
    fixed: Mapping[str, object] = field(default_factory=dict)  # values that its config must have
    looks_at: tuple[str, ...] = ()  # keys of ids of tokens


def as_it_is(ids: Ids, config: Config) -> Ids:
    """Return a row as it came; (L,)."""
    return ids


def filled(ids: Ids, config: Config) -> Ids:
    """Fill a row with padding, which SigLIP reads, up to the last place."""
    left = config["max_position_embeddings"] - len(ids)
    return np.concatenate([ids, np.full(left, config["pad_token_id"], ids.dtype)])


def from_zero(ids: Ids, config: Config) -> Ids:
    """Return places that are counted from 0 on; (L,)."""
    return np.arange(len(ids))


def behind_padding(ids: Ids, config: Config) -> Ids:
    """Return places that are counted from the id of padding on: that place itself for a token of that id; (L,)."""
    padding: int = config["pad_token_id"]
    counted = ids != padding
    places: Ids = np.cumsum(counted) * counted + padding
    return places


def nothing(weights: Weights, length: int) -> Floats:
    """Hide nothing and prefer nothing; (L, L)."""
    return np.zeros((length, length), np.float32)


def causal(weights: Weights, length: int) -> Floats:
    """Hide from each token those behind it; (L, L)."""
    return np.triu(np.full((length, length), -np.inf, np.float32), 1)


RELATIVE = "encoder.relative_attention_bias"


def relative(weights: Weights, length: int) -> Floats:
    """Return MPNet's learned value of each distance between tokens; (h, L, L).

    Distances below 8 have one each, those above share: behind the k-th of them from 8 * 2 ** (k / 2) on, the last from
    90.5. The other half is for those to the right.
    """
    right = np.arange(length)[None, :] - np.arange(length)[:, None]  # (L, L)
    far = np.abs(right)
    shared = 8 + sum((far**2 >= 64 * 2**k).astype(np.int64) for k in range(1, 8))
    bucket = np.where(far < 8, far, shared) + 16 * (right > 0)
    values: Floats = weights[f"{RELATIVE}.weight"][bucket].transpose(2, 0, 1)
    return values


_DISTILBERT = {  # usual keys, and its own
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "hidden_act": "activation",
}


def _of_distilbert(config: Config) -> Config:
    if config.keys() & _DISTILBERT.keys():  # which of two values is meant is for transformers to say
        return {}
    return {**config, **{usual: config.get(own) for usual, own in _DISTILBERT.items()}, "layer_norm_eps": 1e-12}


_BERT = Family(
    words="embeddings.word_embeddings",
    places="embeddings.position_embeddings",
    names=Names(
        norm="embeddings.LayerNorm",
        layer="encoder.layer",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attended="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        inner="intermediate.dense",
        outer="output.dense",
        feed_forward_norm="output.LayerNorm",
    ),
    run=Layers.norms_behind,
    bias=nothing,
    place=from_zero,
    row=as_it_is,
    usual=dict,
    poolings=("first", "mean", "last"),
    tables={"embeddings.token_type_embeddings": ("type_vocab_size", "hidden_size")},
    kind="embeddings.token_type_embeddings",
)
_ROBERTA = replace(_BERT, place=behind_padding, looks_at=("pad_token_id",))
_CLIP = replace(
    _BERT,
    words="embeddings.token_embedding",
    places="embeddings.position_embedding",
    names=Names(
        norm="final_layer_norm",
        layer="encoder.layers",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        attended="self_attn.out_proj",
        attention_norm="layer_norm1",
        inner="mlp.fc1",
        outer="mlp.fc2",
        feed_forward_norm="layer_norm2",
    ),
    run=Layers.norms_before,
    bias=causal,
    tables={},
    kind=None,
)
FAMILIES = {  # by `model_type`
    "bert": _BERT,
    "camembert": _ROBERTA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": replace(
        _BERT,
        names=Names(
            norm="embeddings.LayerNorm",
            layer="transformer.layer",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            attended="attention.out_lin",
            attention_norm="sa_layer_norm",
            inner="ffn.lin1",
            outer="ffn.lin2",
            feed_forward_norm="output_layer_norm",
        ),
        usual=_of_distilbert,
        tables={},
        kind=None,
    ),
    "mpnet": replace(
        _ROBERTA,
        names=replace(
            _BERT.names,
            query="attention.attn.q",
            key="attention.attn.k",
            value="attention.attn.v",
            attended="attention.attn.o",
            attention_norm="attention.LayerNorm",
        ),
        bias=relative,
        tables={RELATIVE: ("relative_attention_num_buckets", "num_attention_heads")},
        kind=None,
        fixed={"relative_attention_num_buckets": 32, "pad_token_id": 1},  # its code has these, whatever a config says
    ),
    "clip_text_model": _CLIP,
    "siglip_text_model": replace(_CLIP, bias=nothing, row=filled, poolings=("end",), looks_at=("pad_token_id",)),
}
