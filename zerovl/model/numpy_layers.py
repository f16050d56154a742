"""Compute the layers of a text tower with NumPy alone, as transformers does with torch, to rounding.

Shapes: `L` tokens, `w` width of the tower, `h` heads, `d` = w / h, `i` width between the two halves of a feed-forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Activation = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Names:
    """What a family calls the parts of its layers; all but the first two stand behind a layer's own name."""

    norm: str  # the one outside of all layers
    layer: str  # before its number
    query: str
    key: str
    value: str
    attended: str  # the projection behind attention
    attention_norm: str
    inner: str  # of the feed-forward, w to i
    outer: str  # i to w
    feed_forward_norm: str


@dataclass(frozen=True)
class Layers:
    """The weights of a tower by name, and what its layers compute with them."""

    weights: Mapping[str, Floats]
    names: Names
    count: int
    heads: int
    epsilon: float  # of norms
    activation: Activation

    def norms_behind(self, hidden: Floats, bias: Floats) -> Floats:
        """Run all layers, with a norm before them and behind each sum, as in BERT; (L, w) -> (L, w).

        `bias` is added to the scores of attention: (L, L), or (h, L, L).
        """
        hidden = self._norm(hidden, self.names.norm)
        for layer in self._each():
            hidden = self._norm(self._attention(hidden, layer, bias) + hidden, f"{layer}.{self.names.attention_norm}")
            hidden = self._norm(self._feed_forward(hidden, layer) + hidden, f"{layer}.{self.names.feed_forward_norm}")
        return hidden

    def norms_before(self, hidden: Floats, bias: Floats) -> Floats:
        """Run all layers, with a norm before each of their parts and behind them, as in CLIP; (L, w) -> (L, w)."""
        for layer in self._each():
            scaled = self._norm(hidden, f"{layer}.{self.names.attention_norm}")
            hidden = hidden + self._attention(scaled, layer, bias)
            scaled = self._norm(hidden, f"{layer}.{self.names.feed_forward_norm}")
            hidden = hidden + self._feed_forward(scaled, layer)
        return self._norm(hidden, self.names.norm)

    def _each(self) -> list[str]:
        return [f"{self.names.layer}.{number}" for number in range(self.count)]

    def _attention(self, hidden: Floats, layer: str, bias: Floats) -> Floats:
        """Let tokens look at each other; (L, w) -> (L, w)."""
        query, key, value = (
            self._linear(hidden, f"{layer}.{part}").reshape(len(hidden), self.heads, -1).swapaxes(0, 1)  # (h, L, d)
            for part in (self.names.query, self.names.key, self.names.value)
        )
        scores = query @ key.swapaxes(1, 2) / np.float32(math.sqrt(query.shape[-1])) + bias  # (h, L, L)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        attended: Floats = (shares / shares.sum(-1, keepdims=True)) @ value  # (h, L, d)
        return self._linear(attended.swapaxes(0, 1).reshape(hidden.shape), f"{layer}.{self.names.attended}")

    def _feed_forward(self, hidden: Floats, layer: str) -> Floats:
        """Pass each token through two linear layers; (L, w) -> (L, w)."""
        inner = self.activation(self._linear(hidden, f"{layer}.{self.names.inner}"))  # (L, i)
        return self._linear(inner, f"{layer}.{self.names.outer}")

    def _linear(self, inputs: Floats, name: str) -> Floats:
        outputs: Floats = inputs @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return outputs

    def _norm(self, inputs: Floats, name: str) -> Floats:
        centred = inputs - inputs.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(self.epsilon))
        outputs: Floats = scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return outputs


def gelu(inputs: Floats) -> Floats:
    """Return x times the share of a normal distribution below x; of any shape."""
    share = [math.erf(value) for value in (inputs.ravel() / np.float32(math.sqrt(2))).tolist()]
    return inputs * np.float32(0.5) * (np.float32(1) + np.array(share, np.float32).reshape(inputs.shape))


def tanh_gelu(inputs: Floats) -> Floats:
    """Return `gelu` with that share approximated by a hyperbolic tangent; of any shape."""
    bent: Floats = (inputs + inputs * inputs * inputs * np.float32(0.044715)) * np.float32(math.sqrt(2 / math.pi))
    share: Floats = np.tanh(bent)
    return inputs * np.float32(0.5) * (np.float32(1) + share)


def quick_gelu(inputs: Floats) -> Floats:
    """Return x times the sigmoid of 1.702 x, that of OpenAI's CLIP; of any shape."""
    # The sigmoid by a tangent, as no exponential can overflow then.
    share: Floats = np.tanh(inputs * np.float32(1.702 / 2))
    return inputs * np.float32(0.5) * (np.float32(1) + share)


ACTIVATIONS: dict[str, Activation] = {  # by `hidden_act` of transformers
    "gelu": gelu,
    "gelu_new": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "quick_gelu": quick_gelu,
}
