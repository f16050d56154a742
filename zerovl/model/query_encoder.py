"""Embed a query with NumPy alone, where the text tower is BERT.

Importing torch and transformers takes seconds, embedding some words a few milliseconds.
`zerovl.model.text_encoder.QueryEncoder` is the reference, reads all other families, and says what is wrong with a
bundle.

Shapes: `N` captions, `D` embedding width, `L` tokens, `w` width of the tower, `h` heads, `d` = w / h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from zerovl.model.architecture import Architecture, load_architecture
from zerovl.model.digest import model_digest
from zerovl.model.text import CaptionTokenizer, Ids, load_tokenizer

Floats = npt.NDArray[np.float32]

_WEIGHTS = "model.safetensors"
_TOWER = "text_tower."
_OTHER_HALF = "image_tower."
_READABLE = {"F64", "F32", "F16", "I64", "I32", "U8", "BOOL"}  # NumPy has no bfloat16
_FIRST, _MEAN, _LAST = "first", "mean", "last"  # of zerovl/model/pooling.py


class NumpyQueryEncoder:
    """Embeds captions one by one as the whole model does, to rounding: L2-normalised float32."""

    def __init__(
        self, architecture: Architecture, tokenizer: CaptionTokenizer, weights: Mapping[str, Floats], digest: str
    ) -> None:
        self.tokenizer = tokenizer
        self.digest = digest  # of the whole model, as `Encoder.digest`
        self._pooling = architecture.pooling
        self._heads = int(architecture.text_config["num_attention_heads"])
        self._layers = int(architecture.text_config["num_hidden_layers"])
        self._epsilon = float(architecture.text_config["layer_norm_eps"])
        self._weights = weights

    @classmethod
    def load(cls, folder: Path | str) -> Self | None:
        """Load a bundle's text half; None where its tower is not one that is computed here, or anything is unusual.

        Raises `ZeroVLError` where the folder is not a bundle, or its tokenizer is damaged.
        """
        folder = Path(folder)
        architecture = load_architecture(folder)
        if not _is_plain_bert(architecture):
            return None
        tokenizer = load_tokenizer(folder, architecture)
        weights = _read(folder / _WEIGHTS)
        own = {name: array for name, array in weights.items() if not name.startswith(_OTHER_HALF)}
        if {name: array.shape for name, array in own.items()} != _shapes(architecture, own):
            return None
        digest = model_digest(architecture, tokenizer, weights, _in_bytes)
        return cls(architecture, tokenizer, {name: _widened(array) for name, array in own.items()}, digest)

    def encode_text(self, captions: Sequence[str]) -> Floats:
        """Embed captions; (N, D). Longer ones are cut at the model's `max_tokens`."""
        return np.stack([self._embed(self.tokenizer([caption])[0][0]) for caption in captions])

    def _embed(self, ids: Ids) -> Floats:
        """Turn the token ids of one caption (L,), none of them padding, into its embedding (D,)."""
        hidden = self._hidden(ids)
        pooled = {_FIRST: hidden[0], _MEAN: hidden.mean(0), _LAST: hidden[-1]}[self._pooling]  # (w,)
        features = self._weights["text_projection.weight"] @ pooled
        embedding: Floats = features / (np.linalg.norm(features) + np.float32(1e-8))
        return embedding

    def _hidden(self, ids: Ids) -> Floats:
        """Turn token ids (L,) into BERT's last hidden states (L, w)."""
        words, kinds, places = (
            self._weights[f"{_TOWER}embeddings.{name}_embeddings.weight"] for name in ("word", "token_type", "position")
        )
        hidden = self._norm(words[ids] + kinds[0] + places[: len(ids)], "embeddings.LayerNorm")
        for number in range(self._layers):
            layer = f"encoder.layer.{number}"
            attended = self._linear(
                self._attention(hidden, f"{layer}.attention.self"), f"{layer}.attention.output.dense"
            )
            hidden = self._norm(attended + hidden, f"{layer}.attention.output.LayerNorm")
            inner = _gelu(self._linear(hidden, f"{layer}.intermediate.dense"))
            hidden = self._norm(self._linear(inner, f"{layer}.output.dense") + hidden, f"{layer}.output.LayerNorm")
        return hidden

    def _attention(self, hidden: Floats, name: str) -> Floats:
        """Let each token look at all; (L, w) -> (L, w)."""
        query, key, value = (
            self._linear(hidden, f"{name}.{part}").reshape(len(hidden), self._heads, -1).swapaxes(0, 1)  # (h, L, d)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.float32(math.sqrt(query.shape[-1]))  # (h, L, L)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        attended: Floats = (shares / shares.sum(-1, keepdims=True)) @ value  # (h, L, d)
        return attended.swapaxes(0, 1).reshape(hidden.shape)

    def _linear(self, inputs: Floats, name: str) -> Floats:
        outputs: Floats = inputs @ self._weights[f"{_TOWER}{name}.weight"].T + self._weights[f"{_TOWER}{name}.bias"]
        return outputs

    def _norm(self, inputs: Floats, name: str) -> Floats:
        centred = inputs - inputs.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(self._epsilon))
        outputs: Floats = scaled * self._weights[f"{_TOWER}{name}.weight"] + self._weights[f"{_TOWER}{name}.bias"]
        return outputs


def _is_plain_bert(architecture: Architecture) -> bool:
    """Whether the tower is BERT as it was published, and its places are enough for all captions."""
    config = architecture.text_config
    return (
        config.get("model_type") == "bert"
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder")
        and not config.get("add_cross_attention")
        and architecture.max_tokens <= int(config["max_position_embeddings"])
        and architecture.pooling in (_FIRST, _MEAN, _LAST)
    )


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a safetensors file by name; none where it cannot be read with NumPy."""
    try:
        with safe_open(path, framework="np") as file:
            if any(file.get_slice(name).get_dtype() not in _READABLE for name in file.keys()):  # noqa: SIM118
                return {}
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return {}


def _shapes(architecture: Architecture, found: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of the text half by name; what is not computed with is as it was found."""
    config = architecture.text_config
    wide, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    linear = {
        "attention.output.dense": (wide, wide),
        "intermediate.dense": (inner, wide),
        "output.dense": (wide, inner),
    }
    linear |= {f"attention.self.{part}": (wide, wide) for part in ("query", "key", "value")}
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (int(config[key]), wide)
        for name, key in (
            ("word", "vocab_size"),
            ("token_type", "type_vocab_size"),
            ("position", "max_position_embeddings"),
        )
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(int(config["num_hidden_layers"]))):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    shapes |= {f"{name}.{part}": (wide,) for name in norms for part in ("weight", "bias")}
    rest = ["image_projection.weight", "temperature", *(["logit_bias"] if architecture.logit_bias is not None else [])]
    return {
        **{_TOWER + name: shape for name, shape in shapes.items()},
        "text_projection.weight": (architecture.embed_dim, wide),
        **{name: found[name].shape if name in found else () for name in rest},
    }


def _widened(array: npt.NDArray[Any]) -> Floats:
    return array.astype(np.float32, copy=False)


def _in_bytes(array: npt.NDArray[Any]) -> memoryview:
    values = _widened(array) if array.dtype == np.float16 else array
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _gelu(inputs: Floats) -> Floats:
    """Return x times the share of a normal distribution below x, as BERT has it; of any shape."""
    share = [math.erf(value) for value in (inputs.ravel() / np.float32(math.sqrt(2))).tolist()]
    return inputs * np.float32(0.5) * (np.float32(1) + np.array(share, np.float32).reshape(inputs.shape))
