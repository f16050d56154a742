"""Inputs of the right shapes without data: what measuring and planning push through the towers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zerovl.engine.forward import Forward
from zerovl.engine.precision import Precision
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix, Side


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


def make_inputs(model: DualEncoder, pairs: int, tokens: int) -> SyntheticInputs:
    """Grey noise and one repeated token; draws from a generator of its own."""
    side = model.architecture.image_size
    generator = torch.Generator().manual_seed(pairs)
    images = torch.randint(0, 256, (pairs, 3, side, side), generator=generator, dtype=torch.uint8)
    ids = torch.full((pairs, tokens), 1)
    return SyntheticInputs(images, ids, torch.ones_like(ids))


def make_mix(mode: str) -> Mix:
    """The mix that takes the most memory of those that `train.mixup` can draw."""
    sides: dict[str, Side] = {"none": "none", "coin": "image", "image": "image", "text": "text"}
    return Mix(sides[mode], 0.5)


def tower_pass(
    model: DualEncoder, mix: Mix, precision: Precision, device: torch.device, tokens: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """A function of m: embeddings (m, D) of m synthetic pairs, by the forward pass of the training steps."""
    forward = Forward(model, mix, precision, device, seeds=[(0, 0)])
    return lambda pairs: forward(make_inputs(model, pairs, tokens), 0)


def timed_pass(
    model: DualEncoder, mix: Mix, precision: Precision, device: torch.device, tokens: int
) -> Callable[[int], Callable[[], tuple[Tensor, Tensor]]]:
    """A function of m that makes the inputs, on the device, and gives the pass of `tower_pass` over them.

    To draw and copy them costs the host more than the towers cost a GPU. They live as long as the pass
    that was given: none are kept here.
    """
    forward = Forward(model, mix, precision, device, seeds=[(0, 0)])

    def prepare(pairs: int) -> Callable[[], tuple[Tensor, Tensor]]:
        inputs = make_inputs(model, pairs, tokens).to(device)
        return lambda: forward(inputs, 0)

    return prepare
