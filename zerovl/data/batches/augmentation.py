"""Image augmentation of the recipe: random resized crop, a flip, then AutoAugment (`auto_augment`).

Draws come from a seed of the sample instead of a global generator. `TrainTransform` is what training uses;
`PillowTransform`, its slow reference, says what it computes, operation by operation.

Legend: `H`, `W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from zerovl.data.batches.auto_augment import auto_augment, draw_operations
from zerovl.data.batches.plane_operations import apply_operations
from zerovl.params import AugmentParams
from zerovl.picture_reader import PictureReader, Pixels, Size

RATIO = (3 / 4, 4 / 3)  # of width to height of the crop
ATTEMPTS = 10  # at a crop that fits, before the central one is taken
SPARE = 0.75  # of the side of what a crop becomes: so many pixels a side it must have to be decoded smaller
_END_OF_JPEG = b"\xff\xd9"

Box = tuple[int, int, int, int]  # left, upper, right, lower


@dataclass(frozen=True)
class Cut:
    """What a crop shows of a picture."""

    box: Box
    mirrored: bool


class PillowTransform:
    """Turns an RGB picture and a seed into a uint8 tensor (3, image_size, image_size); a pure function of both."""

    def __init__(self, image_size: int, augment: AugmentParams) -> None:
        self.image_size = image_size
        self.augment = augment

    def __call__(self, image: Image.Image, rng_seed: int) -> torch.Tensor:
        # Only `Random.random` is used: Python keeps its draws the same from version to version.
        rng = Random(rng_seed)
        box = random_crop_box(image.width, image.height, self.augment.crop_scale, rng)
        # Cropped before, so that the filter does not reach across the crop's border.
        side = self.image_size
        picture = image.crop(box).resize((side, side), Image.Resampling.BILINEAR)
        if self.augment.flip_probability and rng.random() < self.augment.flip_probability:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.augment.auto_augment:
            picture = auto_augment(picture, rng)
        return to_tensor(picture)


class TrainTransform:
    """Turns a picture as stored and a seed into a uint8 tensor (3, image_size, image_size); a pure function of both.

    It draws as `PillowTransform` does and makes the same of the draws: with torch's resize for bytes, whose values are
    at most one level off where its 16-bit weights round otherwise than Pillow's 22 bits. With `decode: fast` a JPEG is
    decoded at a half, a quarter or an eighth of its size where `reduced` says so.
    """

    def __init__(self, image_size: int, augment: AugmentParams) -> None:
        self.image_size = image_size
        self.augment = augment
        self._reader = PictureReader()
        self._reduction = _REDUCTIONS[augment.decode]

    def __call__(self, data: bytes, rng_seed: int) -> torch.Tensor:
        """Return the tensor; raises `BrokenImageError` where the picture does not decode."""
        rng = Random(rng_seed)
        picture = self._reader.open(data)
        cut = draw_cut(picture.size, self.augment, rng)
        decoded = picture.pixels(self._reduction(cut.box, self.image_size))
        pixels = cut_out(decoded, picture.size, cut, self.image_size)
        operations = draw_operations(rng) if self.augment.auto_augment else []
        return torch.from_numpy(apply_operations(pixels, operations))

    def cut_of_jpeg(self, data: bytes, rng_seed: int) -> tuple[Size, Cut] | None:
        """Return size and cut of a whole JPEG in YCbCr that looks as its values, without decoding it; None of others.

        One that holds RGB, as Pillow's `keep_rgb` writes it, is none: whether other decoders than libjpeg see what says
        so is not known. It is the cut that a call would make of the same draws.
        """
        size = self._reader.size_in_ycbcr(data) if data[-2:] == _END_OF_JPEG else None
        return (size, draw_cut(size, self.augment, Random(rng_seed))) if size else None


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Turn an RGB picture into a uint8 tensor (3, H, W)."""
    pixels = np.asarray(image)  # (H, W, 3)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def draw_cut(size: Size, augment: AugmentParams, rng: Random) -> Cut:
    """Draw which part of a picture of `size` is shown, and whether it is mirrored."""
    box = random_crop_box(*size, augment.crop_scale, rng)
    return Cut(box, augment.flip_probability > 0 and rng.random() < augment.flip_probability)


def cut_out(pixels: Pixels, size: Size, cut: Cut, side: int) -> Pixels:
    """Return (side, side, 3) of a picture of `size`, whose pixels (H, W, 3) may be fewer."""
    shown = crop_and_resize(pixels, _scaled(cut.box, size, pixels), side)
    return shown[:, ::-1] if cut.mirrored else shown


def crop_and_resize(pixels: Pixels, box: Box, side: int) -> Pixels:
    """Cut `box` out of pixels (H, W, 3) and resize it to (side, side, 3), bilinear with antialiasing."""
    left, upper, right, lower = box
    crop = torch.from_numpy(pixels[upper:lower, left:right].copy())[None]  # (1, h, w, 3)
    # As a batch with its channels last in memory, for which torch has its fast kernel.
    resized = interpolate(crop.permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def whole(_box: Box, _side: int) -> int:
    """Return 1: a picture is decoded with all its pixels."""
    return 1


def reduced(box: Box, side: int) -> int:
    """Return 8, 4 or 2 where a crop decoded so much smaller has `SPARE` x `side` pixels a side at least; else 1."""
    left, upper, right, lower = box
    spare = min(right - left, lower - upper) / (SPARE * side)
    return next((reduction for reduction in (8, 4, 2) if reduction <= spare), 1)


_REDUCTIONS: dict[str, Callable[[Box, int], int]] = {"exact": whole, "fast": reduced}


def _scaled(box: Box, size: Size, pixels: Pixels) -> Box:
    """A box of a picture of `size` (width, height) in its pixels, which may be fewer (H, W, 3)."""
    height, width, _ = pixels.shape
    if (width, height) == size:
        return box
    left, upper, right, lower = box
    x, y = width / size[0], height / size[1]
    return round(left * x), round(upper * y), round(right * x), round(lower * y)


def random_crop_box(width: int, height: int, scale: tuple[float, float], rng: Random) -> Box:
    """Draw the crop of torchvision's `RandomResizedCrop`: area share in `scale`, aspect in `RATIO`."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(ATTEMPTS):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int((width - w + 1) * rng.random()), int((height - h + 1) * rng.random())
            return left, upper, left + w, upper + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    """The largest central crop whose aspect is in `RATIO`."""
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h
