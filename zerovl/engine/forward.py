"""One micro-batch through both towers, the same way each time it is asked for.

Shapes: m pairs of a micro-batch, w width of a tower, D embedding width.

Dropout: the random state of a tower's forward, and of the dropout behind it, is a pure function of (seed, step,
position of the micro-batch in the global batch, tower), set before each forward. So a second pass draws the masks of
the first, ranks draw different ones, a frozen tower can be left out of the second pass, another
number of ranks changes nothing, and a resumed run needs no saved random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zerovl.engine.frozen_features import is_features
from zerovl.engine.precision import Precision
from zerovl.model.dual_encoder import DualEncoder, is_frozen, l2_normalise
from zerovl.objective.mixup import Mix

_BEHIND_TOWER = 0x5EED_D40F  # so that its masks are not those that the tower drew first


class Images(Protocol):
    """Pixels or features, or what becomes them on its way to a device; a tensor is one."""

    @property
    def nbytes(self) -> int:
        """Bytes that it has on a device."""

    def __len__(self) -> int:
        """Return m."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Tensor:
        """Return pixels (m, 3, H, W) or features (m, w) on the device."""


class Inputs(Protocol):
    """A micro-batch; pixels are uint8, or normalised floats. What a frozen tower makes of a side may stand for it."""

    @property
    def images(self) -> Images:
        """Pixels, (m, 3, H, W); or features of the image tower, (m, w) float."""

    @property
    def input_ids(self) -> Tensor:
        """Token ids, (m, L); or features of the text tower, (m, w) float."""

    @property
    def attention_mask(self) -> Tensor:
        """1 where a token is, 0 where padding is, (m, L)."""

    @property
    def identities(self) -> Tensor | None:
        """Integers of caption and picture, (m, 2) int64; None where equal ones are negatives of each other."""


@dataclass(frozen=True)
class Hidden:
    """What the towers make of a micro-batch, before the projections."""

    image: Tensor  # (m, w of the image tower)
    text: Tensor  # (m, w of the text tower)


@dataclass(frozen=True)
class Constants:
    """Outputs of frozen towers, which a second pass need not compute again; None where a tower learns."""

    image: Tensor | None  # (m, w)
    text: Tensor | None  # (m, w)


@dataclass(frozen=True)
class FeatureDropout:
    """Zeroes a share of what the towers give, and scales the rest up; features read from a cache have it too."""

    image: float = 0.0
    text: float = 0.0

    def __call__(self, hidden: Hidden, seeds: tuple[int, int]) -> Hidden:
        """Return the same features for the same seeds, of image and text."""
        image_seed, text_seed = seeds
        return Hidden(_drop(hidden.image, self.image, image_seed), _drop(hidden.text, self.text, text_seed))


NO_DROPOUT = FeatureDropout()


def seed_device(device: torch.device, seed: int) -> None:
    """Set the random state of the host and, where the towers run there, of the GPUs.

    `torch.manual_seed` gives the same state. For each kind of accelerator that is not in use, though, it keeps the
    seed for later, and formats the whole call stack beside it: milliseconds a call, two calls a micro-batch and pass.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _drop(features: Tensor, share: float, seed: int) -> Tensor:
    if not share:
        return features
    seed_device(features.device, seed ^ _BEHIND_TOWER)
    return torch.nn.functional.dropout(features, share)


@dataclass(frozen=True)
class Forward:
    """The forward pass of one step on one rank."""

    model: DualEncoder
    mix: Mix
    precision: Precision
    device: torch.device
    seeds: list[tuple[int, int]]  # a micro-batch, for image and text tower
    dropout: FeatureDropout = NO_DROPOUT

    def __call__(self, inputs: Inputs, index: int) -> tuple[Tensor, Tensor]:
        """Normalised embeddings of images and captions, (m, D) each."""
        return self.embeddings(self.hidden(inputs, index), index)

    def hidden(self, inputs: Inputs, index: int, known: Constants | None = None) -> Hidden:
        """Both towers, but for what is `known`."""
        image_seed, text_seed = self.seeds[index]
        image, text = (known.image, known.text) if known else (None, None)
        with self.precision.autocast():
            if image is None:
                seed_device(self.device, image_seed)
                images = inputs.images.to(self.device, non_blocking=True)
                image = images if is_features(images) else self._image(images)
            if text is None:
                seed_device(self.device, text_seed)
                input_ids = inputs.input_ids.to(self.device, non_blocking=True)
                text = input_ids if is_features(input_ids) else self._text(input_ids, inputs.attention_mask)
        return Hidden(image, text)

    def _image(self, images: Tensor) -> Tensor:
        """Pixels (m, 3, H, W), mixed, through the image tower, (m, w)."""
        if images.dtype == torch.uint8:
            pixels = self.mix.raw_images(images, self.model.pixel_scale, self.model.pixel_shift)
        else:
            pixels = self.mix.images(images)
        features: Tensor = self.model.image_tower(pixels)
        return features

    def _text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (m, L) through the text tower, (m, w)."""
        return self.model.text_hidden(input_ids, attention_mask.to(self.device, non_blocking=True))

    def embeddings(self, hidden: Hidden, index: int) -> tuple[Tensor, Tensor]:
        """Projected, mixed and normalised in float32 or better, (m, D) each."""
        hidden = self.dropout(hidden, self.seeds[index])
        with self.precision.autocast():
            image_features = self.model.image_projection(hidden.image)
            text_features = self.model.text_projection(hidden.text)
        return l2_normalise(image_features), l2_normalise(self.mix.text_features(text_features))

    def constants(self, hidden: Hidden) -> Constants:
        """Copies of what frozen towers gave; the copy lets go of the storage that a view would hold."""
        return Constants(
            hidden.image.detach().clone() if is_frozen(self.model.image_tower) else None,
            hidden.text.detach().clone() if is_frozen(self.model.text_tower) else None,
        )


def random_seeds(seed: int, step: int, rank: int, micro_batches: int) -> list[tuple[int, int]]:
    """Seeds of a rank's micro-batches, (image, text) each; a micro-batch has the same ones on any number of ranks."""
    first, last = rank * micro_batches, (rank + 1) * micro_batches
    states = np.random.SeedSequence([seed, step]).generate_state(2 * last, np.uint64) >> np.uint64(1)
    pairs = states.reshape(-1, 2)[first:]
    return [(int(image), int(text)) for image, text in pairs]
