"""Transform pictures for evaluation, as the recipe does, or as the library does that a model comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.model.architecture import Architecture
from zerovl.params import ModelParams

# Both sides to one length; or the shorter side, the crop's offset rounded down (transformers) or to the nearest even
# number (torchvision, so open_clip).
RESIZE_MODES = ("squash", "shortest", "shortest-rounded")
# What of a long picture is resized, in shorter sides. Resized whole, a strip of 20,000x1 pixels would take gigabytes.
LONGEST = 32
INTERPOLATIONS = {
    name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos", "nearest", "box", "hamming")
}


@dataclass(frozen=True)
class EvaluationTransform:
    """Resize to `resize_size` as `resize_mode` says (by default both sides, antialiased bilinear), crop the centre.

    As the original does it for all its published numbers; resizing straight to `image_size` moves
    the embeddings by up to 0.016. Models that were imported keep the resize that they were made with.
    """

    image_size: int
    resize_size: int
    resize_mode: str = "squash"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for key, known in (("resize_mode", RESIZE_MODES), ("interpolation", INTERPOLATIONS)):
            if getattr(self, key) not in known:
                raise ZeroVLError(f"{key} {getattr(self, key)!r} of the model is not one of {', '.join(known)}")

    @classmethod
    def of(cls, found: Architecture | ModelParams) -> Self:
        """Return the transform that a model is evaluated with."""
        return cls(found.image_size, found.resize_size, found.resize_mode, found.interpolation)

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB picture into uint8 pixels (3, image_size, image_size)."""
        image = self._middle(image)
        size = self._resized(image.size)
        resized = image if image.size == size else image.resize(size, INTERPOLATIONS[self.interpolation])
        left, top = (self._offset(side) for side in size)
        cropped = resized.crop((left, top, left + self.image_size, top + self.image_size))
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()

    def _middle(self, image: Image.Image) -> Image.Image:
        """Cut the same off both ends of a picture longer than `LONGEST` shorter sides, so that its centre stays."""
        if self.resize_mode == "squash":
            return image
        left, top = (max(0, (side - LONGEST * min(image.size) + 1) // 2) for side in image.size)
        return image.crop((left, top, image.width - left, image.height - top)) if left or top else image

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.resize_size, self.resize_size
        width, height = size
        longer = int(self.resize_size * max(size) / min(size))
        return (longer, self.resize_size) if width > height else (self.resize_size, longer)

    def _offset(self, side: int) -> int:
        border = side - self.image_size
        return border // 2 if self.resize_mode == "shortest" else round(border / 2)
