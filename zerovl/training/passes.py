"""Embed with the model as it is in training, pass by pass, dealt over the ranks.

Pass number k is rank k mod W's. What a pass holds does not depend on W, so embeddings and scores are the same bits on
any number of ranks of one kind of processor.

Shapes: `N` rows of all passes, `n` of one, `D` embedding width, `w` width of the image tower, `L` tokens, `H` and `W`
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.evaluation.sharing import own, rows_of_all
from zerovl.model.dual_encoder import DualEncoder, l2_normalise
from zerovl.model.text import CaptionTokenizer

PASS = 100  # pictures or captions embedded at once

Inputs = tuple[Tensor, ...]  # of a tower, n rows each


@dataclass(frozen=True)
class Passes:
    """What one tower is to embed, of which a rank holds its own passes alone."""

    sizes: tuple[int, ...]  # rows of each of all passes
    own: tuple[Inputs | None, ...]  # of this rank's passes; None of one without rows
    spare: Inputs  # one row, which stands in where a rank has no pass and the others have one

    @classmethod
    def of_pixels(cls, sizes: Sequence[int], own_pixels: Sequence[Tensor | None], side: int) -> Passes:
        """Make passes of this rank's pictures, uint8 (n, 3, H, W) a pass."""
        inputs = tuple(None if pixels is None else (pixels,) for pixels in own_pixels)
        return cls(tuple(sizes), inputs, (torch.zeros(1, 3, side, side, dtype=torch.uint8),))

    @classmethod
    def of_captions(cls, captions: Sequence[str], tokenizer: CaptionTokenizer, ranks: Ranks) -> Passes:
        """Make passes of captions, (n, L) of ids and of the mask a pass; `captions` are those of all ranks."""
        parts = [list(captions[start : start + PASS]) for start in range(0, len(captions), PASS)]
        inputs = tuple(_tokens(tokenizer, part) for part in parts[own(ranks)])
        return cls(tuple(map(len, parts)), inputs, _tokens(tokenizer, ["a"]))


@dataclass(frozen=True)
class Towers:
    """The model in training, as what scores it asks for it; runs inside the caller's `no_grad`, on all ranks."""

    model: DualEncoder
    ranks: Ranks  # on the host
    in_step: bool  # a sharded model goes forward on all ranks together, so one without a pass goes along
    alive: Callable[[], None]  # called before each pass: scoring many pictures is progress too
    precision: Precision  # in which the towers compute

    def images(self, passes: Passes) -> Tensor:
        """Embed pictures: (N, D), on the CPU; a collective."""
        return self._embedded(self.model.encode_image, passes)

    def image_features(self, passes: Passes) -> Tensor:
        """Turn pictures into what the image tower gives: (N, w), on the CPU; a collective."""
        return self._embedded(lambda pixels: self.model.image_tower(self.model.normalise(pixels)), passes)

    def embedded(self, features: Tensor) -> Tensor:
        """Project what `image_features` gave, (N, w), on each rank all: the embeddings of `images`, (N, D)."""
        with self.precision.autocast():
            rows = l2_normalise(self.model.image_projection(features.to(self.model.temperature.device)))
        return rows.float().cpu()

    def captions(self, passes: Passes) -> Tensor:
        """Embed captions: (N, D), on the CPU; a collective."""
        return self._embedded(self.model.encode_text, passes)

    def _embedded(self, encode: Callable[..., Tensor], passes: Passes) -> Tensor:
        parts = []
        for number in range(-(-len(passes.sizes) // self.ranks.world_size)):
            inputs = passes.own[number] if number < len(passes.own) else None
            if inputs is None and not self.in_step:
                continue
            self.alive()
            with self.precision.autocast():
                rows = encode(*(part.to(self.model.temperature.device) for part in inputs or passes.spare))
            if inputs:
                parts.append(rows.float().cpu())
        return rows_of_all(parts, passes.sizes, self.ranks)


def _tokens(tokenizer: CaptionTokenizer, captions: list[str]) -> Inputs:
    return tuple(torch.from_numpy(array) for array in tokenizer(captions))
