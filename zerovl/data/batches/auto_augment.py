"""AutoAugment with the ImageNet policy, as the paper's code has it, which torchvision's is not; on Pillow's images.

It rotates in one direction alone, shears bicubically, fills what comes into view with grey, and solarizes at
256 - 256 level / 9. What is a table of 256 values is applied as one; the tests compare with Pillow's own operations,
pixel for pixel. `plane_operations` does the same to the planes of a picture, faster: this is its slow reference.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

LEVELS = 10  # of magnitude in the policy
FILL = (128, 128, 128)  # of what a rotation or a shear brings into view

Drawn = tuple[str, float]  # an operation and its magnitude


def draw_operations(rng: Random) -> list[Drawn]:
    """Draw one of the 25 pairs of operations, each with its probability; source: arXiv 1805.09501."""
    pair = IMAGENET_POLICY[int(len(IMAGENET_POLICY) * rng.random())]
    chances = rng.random(), rng.random()
    signs = rng.random(), rng.random()
    return [
        (name, magnitude_of(name, level, negative=sign < 0.5))
        for (name, probability, level), chance, sign in zip(pair, chances, signs, strict=True)
        if chance < probability
    ]


def auto_augment(image: Image.Image, rng: Random) -> Image.Image:
    """Apply the drawn operations one after the other to an RGB picture."""
    for name, magnitude in draw_operations(rng):
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
