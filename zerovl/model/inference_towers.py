"""Text towers that embed captions and never learn, without transformers, whose import is a third of a model's loading.

They are of the families of `numpy_families`, in the configurations that are computed there, with the weights by the
names that transformers has for them. `zerovl.model.text_towers` is the reference, and builds all others, and those that
learn. Both give the same numbers to the last bit on CPUs, but for MPNet, whose attention transformers writes out.

Shapes: `m` captions, `L` tokens, `w` width of the tower, `h` heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zerovl.model import numpy_families as families
from zerovl.model.architecture import Architecture
from zerovl.model.attention_masks import visible_places
from zerovl.model.inference_layers import ACTIVATIONS, Sight, TorchLayers
from zerovl.model.numpy_layers import Layers
from zerovl.model.numpy_towers import NumpyTextTower, numpy_text_tower

Weights = Mapping[str, Tensor]


class Output(NamedTuple):
    """What a tower gives, by transformers' name."""

    last_hidden_state: Tensor  # (m, L, w); of a family that fills its rows, one for each place


class InferenceTextTower(nn.Module):
    """A tower of a family that is known, with no values in its weights yet."""

    def __init__(self, tower: NumpyTextTower) -> None:
        super().__init__()
        self._tower = tower
        self._owners: list[tuple[str, nn.Module, str]] = []  # of each weight; itself may be put in again, as by `to`
        for name, shape in tower.shapes().items():
            module, own_name = _register(self, name.split("."), nn.Parameter(torch.empty(shape)))
            self._owners.append((name, module, own_name))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Output:
        """Turn token ids and mask (m, L) into last hidden states."""
        family, config = self._tower.family, self._tower.config
        weights = {name: getattr(module, own_name) for name, module, own_name in self._owners}
        if family.row is families.filled:
            input_ids, sight = _filled(input_ids, attention_mask, config), Sight()
        else:
            sight = _SIGHTS[family.bias](weights, attention_mask)
        hidden = functional.embedding(input_ids, weights[f"{family.words}.weight"])  # (m, L, w)
        if family.kind is not None:
            hidden = hidden + weights[f"{family.kind}.weight"][0]
        places = _PLACES[family.place](input_ids, config)
        hidden = hidden + functional.embedding(places, weights[f"{family.places}.weight"])
        layers = self._tower.layers(TorchLayers, weights, ACTIVATIONS)
        return Output(_RUNS[family.run](layers, hidden, sight))


def inference_text_tower(architecture: Architecture) -> InferenceTextTower | None:
    """Return the text tower of a model; None where it is not one that is computed here."""
    tower = numpy_text_tower(architecture)
    return None if tower is None else InferenceTextTower(tower)


def _register(module: nn.Module, path: list[str], parameter: nn.Parameter) -> tuple[nn.Module, str]:
    """Put a parameter below a module, at a path of names; returns the module that has it, and its name there."""
    first, *rest = path
    if not rest:
        module.register_parameter(first, parameter)
        return module, first
    if first not in module._modules:
        module.add_module(first, nn.Module())
    return _register(module.get_submodule(first), rest, parameter)


def _filled(input_ids: Tensor, attention_mask: Tensor, config: families.Config) -> Tensor:
    """Fill rows with padding, which SigLIP reads, up to the last place P; (m, L) and (m, L) -> (m, P)."""
    padding, places = config["pad_token_id"], config["max_position_embeddings"]
    ids = input_ids.masked_fill(attention_mask == 0, padding)
    return functional.pad(ids, (0, places - ids.shape[1]), value=padding)


def _from_zero(input_ids: Tensor, config: families.Config) -> Tensor:
    return torch.arange(input_ids.shape[1], device=input_ids.device)


def _behind_padding(input_ids: Tensor, config: families.Config) -> Tensor:
    padding = config["pad_token_id"]
    counted = (input_ids != padding).long()
    places: Tensor = counted.cumsum(1) * counted + padding
    return places


def _hides_nothing(attention_mask: Tensor) -> bool:
    """Whether a mask (m, L) is of ones; not asked of an accelerator, which would be waited for, nor while tracing."""
    return attention_mask.is_cpu and not torch.compiler.is_compiling() and bool(attention_mask.all())


def _all_tokens(weights: Weights, attention_mask: Tensor) -> Sight:
    return Sight() if _hides_nothing(attention_mask) else Sight(visible_places(attention_mask))


def _earlier_tokens(weights: Weights, attention_mask: Tensor) -> Sight:
    if _hides_nothing(attention_mask):
        return Sight(is_causal=True)
    return Sight(visible_places(attention_mask, earlier=True))


def _by_distance(weights: Weights, attention_mask: Tensor) -> Sight:
    """All tokens, with MPNet's learned value of each distance; as `numpy_families.relative`."""
    right = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    right = right[None, :] - right[:, None]  # (L, L)
    far = right.abs()
    shared = 8 + sum((far**2 >= 64 * 2**k).long() for k in range(1, 8))
    bucket = torch.where(far < 8, far, shared) + 16 * (right > 0)
    values = functional.embedding(bucket, weights[f"{families.RELATIVE}.weight"]).permute(2, 0, 1)[None]  # (1, h, L, L)
    return Sight(torch.where(visible_places(attention_mask), values, torch.finfo(values.dtype).min))


# What of a family is a function of NumPy, in torch.
_PLACES: dict[Callable[..., object], Callable[[Tensor, families.Config], Tensor]] = {
    families.from_zero: _from_zero,
    families.behind_padding: _behind_padding,
}
_SIGHTS: dict[Callable[..., object], Callable[[Weights, Tensor], Sight]] = {
    families.nothing: _all_tokens,
    families.causal: _earlier_tokens,
    families.relative: _by_distance,
}
_RUNS: dict[Callable[..., object], Callable[[TorchLayers, Tensor, Sight], Tensor]] = {
    Layers.norms_behind: TorchLayers.norms_behind,
    Layers.norms_before: TorchLayers.norms_before,
}
