"""The layers of a text tower with torch alone, step for step those of transformers in evaluation mode.

Shapes: `m` captions, `L` tokens, `w` width of the tower, `h` heads, `d` = w / h, `i` width between the two halves of a
feed-forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from zerovl.model.numpy_layers import Names

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sight:
    """What tokens see of each other: all, those that `mask` lets them, or none behind them."""

    mask: Tensor | None = None  # bool, or what is added to scores: (m, 1, L, L) or (m, h, L, L)
    is_causal: bool = False  # without a mask


@dataclass(frozen=True)
class TorchLayers:
    """The weights of a tower by name, and what its layers compute with them; `numpy_layers.Layers` in torch."""

    weights: Mapping[str, Tensor]
    names: Names
    count: int
    heads: int
    epsilon: float  # of norms
    activation: Activation

    def norms_behind(self, hidden: Tensor, sight: Sight) -> Tensor:
        """Run all layers, with a norm before them and behind each sum, as in BERT; (m, L, w) -> (m, L, w)."""
        hidden = self._norm(hidden, self.names.norm)
        for layer in self._each():
            hidden = self._norm(self._attention(hidden, layer, sight) + hidden, f"{layer}.{self.names.attention_norm}")
            hidden = self._norm(self._feed_forward(hidden, layer) + hidden, f"{layer}.{self.names.feed_forward_norm}")
        return hidden

    def norms_before(self, hidden: Tensor, sight: Sight) -> Tensor:
        """Run all layers, with a norm before each of their parts and behind all, as in CLIP; shapes as there."""
        for layer in self._each():
            scaled = self._norm(hidden, f"{layer}.{self.names.attention_norm}")
            hidden = hidden + self._attention(scaled, layer, sight)
            scaled = self._norm(hidden, f"{layer}.{self.names.feed_forward_norm}")
            hidden = hidden + self._feed_forward(scaled, layer)
        return self._norm(hidden, self.names.norm)

    def _each(self) -> list[str]:
        return [f"{self.names.layer}.{number}" for number in range(self.count)]

    def _attention(self, hidden: Tensor, layer: str, sight: Sight) -> Tensor:
        """Let tokens look at each other; (m, L, w) -> (m, L, w)."""
        query, key, value = (
            self._linear(hidden, f"{layer}.{part}").unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (m, h, L, d)
            for part in (self.names.query, self.names.key, self.names.value)
        )
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=sight.mask, is_causal=sight.is_causal
        )
        return self._linear(attended.transpose(1, 2).flatten(2), f"{layer}.{self.names.attended}")

    def _feed_forward(self, hidden: Tensor, layer: str) -> Tensor:
        """Pass each token through two linear layers; (m, L, w) -> (m, L, w)."""
        inner = self.activation(self._linear(hidden, f"{layer}.{self.names.inner}"))  # (m, L, i)
        return self._linear(inner, f"{layer}.{self.names.outer}")

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        return functional.linear(inputs, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, inputs: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return functional.layer_norm(inputs, weight.shape, weight, self.weights[f"{name}.bias"], self.epsilon)


def _quick_gelu(inputs: Tensor) -> Tensor:
    return inputs * torch.sigmoid(1.702 * inputs)


def _new_gelu(inputs: Tensor) -> Tensor:
    """As torch's own with a tangent, but for rounding: step for step that of transformers."""
    bent = math.sqrt(2 / math.pi) * (inputs + 0.044715 * torch.pow(inputs, 3.0))
    return 0.5 * inputs * (1.0 + torch.tanh(bent))


ACTIVATIONS: dict[str, Activation] = {  # by `hidden_act` of transformers
    "gelu": functional.gelu,
    "gelu_new": _new_gelu,
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
}
