"""Compute the last hidden states of text towers with NumPy alone.

Each family is taken with just the configurations whose numbers are those of transformers; all else is left to it.

Shapes: `L` tokens, `w` width of the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from zerovl.model.architecture import Architecture
from zerovl.model.numpy_families import FAMILIES, Config, Family, Weights
from zerovl.model.numpy_layers import ACTIVATIONS, Floats, Layers, Names
from zerovl.model.text import Ids

Shapes = dict[str, tuple[int, ...]]
_Weights = TypeVar("_Weights")
_Activation = TypeVar("_Activation")
_Layers = TypeVar("_Layers")
LayersOf = Callable[[_Weights, Names, int, int, float, _Activation], _Layers]


@dataclass(frozen=True)
class NumpyTextTower:
    """A tower of a family that is known, without its weights."""

    family: Family
    config: Config  # by the keys of BERT's

    def shapes(self) -> Shapes:
        """Return the shape of each weight by name."""
        config, names = self.config, self.family.names
        shapes: Shapes = {
            f"{name}.weight": (config[rows], config[columns]) for name, (rows, columns) in self.tables().items()
        }
        wide, inner = config["hidden_size"], config["intermediate_size"]
        linear = dict.fromkeys((names.query, names.key, names.value, names.attended), (wide, wide))
        linear |= {names.inner: (inner, wide), names.outer: (wide, inner)}
        norms = [names.norm]
        for layer in (f"{names.layer}.{number}" for number in range(config["num_hidden_layers"])):
            norms += [f"{layer}.{names.attention_norm}", f"{layer}.{names.feed_forward_norm}"]
            for name, shape in linear.items():
                shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        return shapes | {f"{name}.{part}": (wide,) for name in norms for part in ("weight", "bias")}

    def tables(self) -> Mapping[str, tuple[str, str]]:
        """Return the keys of rows and columns of each embedding by name."""
        own = {
            self.family.words: ("vocab_size", "hidden_size"),
            self.family.places: ("max_position_embeddings", "hidden_size"),
        }
        return {**own, **self.family.tables}

    def layers(
        self, kind: LayersOf[_Weights, _Activation, _Layers], weights: _Weights, activations: Mapping[str, _Activation]
    ) -> _Layers:
        """Return the layers of the tower, of a kind that computes with NumPy or with torch.

        Args:
            kind: `numpy_layers.Layers`, or what stands for it.
            weights: by the names of `shapes`.
            activations: by `hidden_act`.
        """
        config = self.config
        return kind(
            weights,
            self.family.names,
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["layer_norm_eps"],
            activations[config["hidden_act"]],
        )

    def hidden(self, weights: Weights, ids: Ids) -> Floats:
        """Turn the token ids of one caption (L,), none of them padding, into last hidden states.

        These are (L, w); of a family that fills its rows, one for each place.
        """
        family, config = self.family, self.config
        layers = self.layers(Layers, weights, ACTIVATIONS)
        row = family.row(ids, config)
        embedded = weights[f"{family.words}.weight"][row]  # (L, w)
        if family.kind is not None:
            embedded = embedded + weights[f"{family.kind}.weight"][0]
        embedded = embedded + weights[f"{family.places}.weight"][family.place(row, config)]
        return family.run(layers, embedded, family.bias(weights, len(row)))


def numpy_text_tower(architecture: Architecture) -> NumpyTextTower | None:
    """Return the text tower of a model; None where it is not one that is computed here."""
    family = FAMILIES.get(str(architecture.text_config.get("model_type")))
    if family is None or architecture.pooling not in family.poolings:
        return None
    tower = NumpyTextTower(family, family.usual(architecture.text_config))
    return tower if _is_plain(tower) and _has_places(tower, architecture.max_tokens) else None


def _is_plain(tower: NumpyTextTower) -> bool:
    """Whether the tower is its family's as it was published, of any size."""
    family, config = tower.family, tower.config
    sizes = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
    sizes |= {key for keys in tower.tables().values() for key in keys}
    return (
        all(isinstance(config.get(key), int) and config[key] > 0 for key in sizes)
        and config["hidden_size"] % config["num_attention_heads"] == 0
        and isinstance(config.get("layer_norm_eps"), float)
        and config.get("hidden_act") in ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder")
        and not config.get("add_cross_attention")
        and all(config.get(key) == value for key, value in family.fixed.items())
        and all(config.get(key) in range(config["vocab_size"]) for key in family.looks_at)
    )


def _has_places(tower: NumpyTextTower, length: int) -> bool:
    """Whether there is a place for each token of a caption of that length."""
    places: int = tower.config["max_position_embeddings"]
    row = np.full(length, -1)  # of tokens that are not padding, whatever its id
    return length <= places and int(tower.family.place(row, tower.config).max(initial=0)) < places
