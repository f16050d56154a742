"""Coin-flipping mixup (arXiv 2112.09331, sec. 3.3): each step mixes raw images or text features, by a coin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from zerovl.objective.targets import Targets

Side = Literal["none", "image", "text"]
_STREAM = 0x6D69  # keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class Mix:
    """What one step mixes: shared by all its micro-batches and ranks."""

    side: Side = "none"
    weight: float = 1.0

    def images(self, pixels: Tensor) -> Tensor:
        """Mix normalised pixels (m, 3, H, W) with those of the micro-batch in reverse order."""
        return self._mixed(pixels) if self.side == "image" else pixels

    def raw_images(self, pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Mix uint8 pixels (m, 3, H, W) that scale * pixels + shift normalises: `images` of these, to rounding.

        Apart, to normalise and to mix read and write the floats eight times; so they are written twice and read once.
        """
        if self.side != "image":
            return torch.addcmul(shift, pixels, scale)
        own = torch.addcmul(shift, pixels, self.weight * scale)
        return own.addcmul_(pixels.flip(0), (1 - self.weight) * scale)

    def text_features(self, features: Tensor) -> Tensor:
        """Mix projected, not yet normalised features (m, D) in the same way."""
        return self._mixed(features) if self.side == "text" else features

    def _mixed(self, own: Tensor) -> Tensor:
        return self.weight * own + (1 - self.weight) * own.flip(0)

    def targets(self, sizes: list[int], device: torch.device, identities: Tensor | None = None) -> Targets:
        """Targets of a local batch made of micro-batches of these sizes; `identities` (b, 2) as in `Targets`."""
        if self.side == "none":
            return Targets(identities=identities)
        parts, start = [], 0
        for size in sizes:  # made where they are needed: a copy from the host would wait for the device
            parts.append(torch.arange(start + size - 1, start - 1, -1, device=device))
            start += size
        return Targets(self.weight, torch.cat(parts), self.side, identities)


@dataclass(frozen=True)
class Mixup:
    """Draws the mix of a step, a pure function of (seed, step)."""

    mode: Literal["none", "coin", "image", "text"]
    alpha: float
    seed: int

    def draw(self, step: int) -> Mix:
        """Return what a step mixes."""
        if self.mode == "none":
            return Mix()
        rng = np.random.default_rng([self.seed, _STREAM, step])
        weight = float(rng.beta(self.alpha, self.alpha))
        heads = bool(rng.integers(2))
        side: Side = ("image" if heads else "text") if self.mode == "coin" else self.mode
        return Mix(side, weight)
