"""Inputs of the right shapes without data: what measuring and planning push through the towers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from zerovl.engine.forward import Forward
from zerovl.engine.frozen_features import Side
from zerovl.engine.precision import Precision
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix
from zerovl.objective.mixup import Side as MixedSide


@dataclass(frozen=True)
class SyntheticInputs:
    """A micro-batch as the loader makes it; every caption has L tokens."""

    images: Tensor  # (m, 3, H, W) uint8
    input_ids: Tensor  # (m, L)
    attention_mask: Tensor  # (m, L)
    identities: None = None  # no two pairs are equal

    def to(self, device: torch.device) -> SyntheticInputs:
        """Return the same inputs on a device."""
        return SyntheticInputs(self.images.to(device), self.input_ids.to(device), self.attention_mask.to(device))


def make_inputs(model: DualEncoder, pairs: int, tokens: int, side: int = 0) -> SyntheticInputs:
    """Grey noise of `side` pixels (0: the model's own) and one repeated token; draws from a generator of its own."""
    side = side or model.architecture.image_size
    generator = torch.Generator().manual_seed(pairs)
    images = torch.randint(0, 256, (pairs, 3, side, side), generator=generator, dtype=torch.uint8)
    ids = torch.full((pairs, tokens), 1)
    return SyntheticInputs(images, ids, torch.ones_like(ids))


def make_mix(mode: str) -> Mix:
    """The mix that takes the most memory of those that `train.mixup` can draw."""
    sides: dict[str, MixedSide] = {"none": "none", "coin": "image", "image": "image", "text": "text"}
    return Mix(sides[mode], 0.5)


def with_features(model: DualEncoder, inputs: SyntheticInputs, known: Collection[Side]) -> SyntheticInputs:
    """Put features (m, w) in the place of the sides that are read from a cache, as the loader does."""
    pairs = len(inputs.images)
    images = torch.ones(pairs, model.image_projection.in_features) if "image" in known else inputs.images
    text = torch.ones(pairs, model.text_projection.in_features) if "text" in known else inputs.input_ids
    return SyntheticInputs(images, text, inputs.attention_mask)


def tower_pass(
    model: DualEncoder,
    mix: Mix,
    precision: Precision,
    device: torch.device,
    tokens: int,
    known: Collection[Side] = (),
    side: int = 0,
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """A function of m: embeddings (m, D) of m synthetic pairs, by the forward pass of the training steps."""
    forward = Forward(model, mix, precision, device, seeds=[(0, 0)])
    return lambda pairs: forward(with_features(model, make_inputs(model, pairs, tokens, side), known), 0)


def timed_pass(
    model: DualEncoder,
    mix: Mix,
    precision: Precision,
    device: torch.device,
    tokens: int,
    known: Collection[Side] = (),
    side: int = 0,
) -> Callable[[int], Callable[[], tuple[Tensor, Tensor]]]:
    """A function of m that makes the inputs, on the device, and gives the pass of `tower_pass` over them.

    To draw and copy them costs the host more than the towers cost a GPU. They live as long as the pass
    that was given: none are kept here.
    """
    forward = Forward(model, mix, precision, device, seeds=[(0, 0)])

    def prepare(pairs: int) -> Callable[[], tuple[Tensor, Tensor]]:
        inputs = with_features(model, make_inputs(model, pairs, tokens, side), known).to(device)
        return lambda: forward(inputs, 0)

    return prepare
