"""Image augmentation of the recipe: random resized crop, a flip, then AutoAugment with the ImageNet policy.

AutoAugment is that of the paper's code, which torchvision's is not: it rotates in one direction alone, shears
bicubically, fills what comes into view with grey, and solarizes at 256 - 256 level / 9. Draws come from a seed of the
sample instead of a global generator, and what is a table of 256 values is applied as one, which is what counts for
small pictures; the tests compare with Pillow's own operations, pixel for pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance

from zerovl.params import AugmentParams

RATIO = (3 / 4, 4 / 3)  # of width to height of the crop
LEVELS = 10  # of magnitude in the policy
ATTEMPTS = 10  # at a crop that fits, before the central one is taken
FILL = (128, 128, 128)  # of what a rotation or a shear brings into view

Box = tuple[int, int, int, int]  # left, upper, right, lower


class TrainTransform:
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


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Turn an RGB picture into a uint8 tensor (3, H, W)."""
    pixels = np.asarray(image)  # (H, W, 3)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


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


def auto_augment(image: Image.Image, rng: Random) -> Image.Image:
    """Apply one of the 25 pairs of operations, each with its probability; source: arXiv 1805.09501."""
    pair = IMAGENET_POLICY[int(len(IMAGENET_POLICY) * rng.random())]
    chances = rng.random(), rng.random()
    signs = rng.random(), rng.random()
    for (name, probability, level), chance, sign in zip(pair, chances, signs, strict=True):
        if chance < probability:
            magnitude = magnitude_of(name, level, negative=sign < 0.5)
            image = OPERATIONS[name](image, magnitude)
    return image


def magnitude_of(name: str, level: int, *, negative: bool) -> float:
    """Return slope, degrees, factor, bits or threshold of an operation at a level in range(LEVELS)."""
    share = level / (LEVELS - 1)
    match name:
        case "ShearX":
            magnitude = 0.3 * share
        case "Rotate":
            return 30.0 * share  # counter-clockwise whatever the sign: the paper's code draws none here
        case "Color" | "Contrast" | "Sharpness":
            magnitude = 0.9 * share
        case "Posterize":
            return 8 - round(4 * share)
        case "Solarize":
            return 256.0 - 256.0 * share
        case _:
            return 0.0
    return -magnitude if negative else magnitude


def _shear_x(image: Image.Image, magnitude: float) -> Image.Image:
    matrix = (1.0, magnitude, 0.0, 0.0, 1.0, 0.0)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=FILL)


def _rotate(image: Image.Image, magnitude: float) -> Image.Image:
    return image.rotate(magnitude, Image.Resampling.NEAREST, fillcolor=FILL)


def _color(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1.0 + magnitude)


def _contrast(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1.0 + magnitude)


def _sharpness(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1.0 + magnitude)


def _posterize(image: Image.Image, magnitude: float) -> Image.Image:
    mask = ~(2 ** (8 - int(magnitude)) - 1)
    return _apply_table(image, np.tile(np.arange(256) & mask, 3))


def _solarize(image: Image.Image, magnitude: float) -> Image.Image:
    values = np.arange(256)
    return _apply_table(image, np.tile(np.where(values < magnitude, values, 255 - values), 3))


def _invert(image: Image.Image, _magnitude: float) -> Image.Image:
    return _apply_table(image, np.tile(255 - np.arange(256), 3))


def _auto_contrast(image: Image.Image, _magnitude: float) -> Image.Image:
    """Stretch each channel to the full range, as `ImageOps.autocontrast` does."""
    values = np.arange(256)
    table = np.tile(values, (3, 1))  # (channels, 256)
    for channel, counts in enumerate(_histogram(image)):
        used = np.flatnonzero(counts)
        low, high = int(used[0]), int(used[-1])
        if high > low:
            scale = 255.0 / (high - low)
            table[channel] = np.clip((values * scale - low * scale).astype(np.int64), 0, 255)
    return _apply_table(image, table)


def _equalize(image: Image.Image, _magnitude: float) -> Image.Image:
    """Even out each channel's histogram, as `ImageOps.equalize` does."""
    table = np.tile(np.arange(256), (3, 1))  # (channels, 256)
    for channel, counts in enumerate(_histogram(image)):
        used = np.flatnonzero(counts)
        step = int(counts.sum() - counts[used[-1]]) // 255
        if used.size > 1 and step:
            below = np.cumsum(counts) - counts  # (256,) pixels with a lower value
            table[channel] = np.minimum((step // 2 + below) // step, 255)
    return _apply_table(image, table)


def _histogram(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.array(image.histogram(), dtype=np.int64).reshape(3, 256)


def _apply_table(image: Image.Image, table: npt.NDArray[np.int64]) -> Image.Image:
    """Replace each value v of channel c by table[c, v]; 3 x 256 values."""
    return image.point(cast(list[float], table.ravel().tolist()))


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "ShearX": _shear_x,
    "Rotate": _rotate,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
}

Operation = tuple[str, float, int]  # name, probability, level (0 where the operation has none)

IMAGENET_POLICY: tuple[tuple[Operation, Operation], ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
