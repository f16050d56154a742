"""Which frozen towers give the same features at every visit of a pair, so that they can be kept.

Shapes: m pairs of a micro-batch, w width of a tower, L tokens.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from zerovl.params import Params, TrainParams

Side = Literal["image", "text"]


def unaugmented_sides(train: TrainParams) -> list[Side]:
    """Sides whose tower is frozen and whose pictures or captions are never changed."""
    augment = train.augment
    still = {
        "image": augment.crop_scale == (1.0, 1.0) and not augment.auto_augment and not augment.flip_probability,
        "text": not augment.mask_probability,
    }
    sides: tuple[Side, ...] = ("image", "text")
    return [side for side in sides if side in train.freeze and still[side]]


def training_image_size(params: Params) -> int:
    """Return the side of the pictures that the image tower gets in training: where it never changes them, of all."""
    own = params.model.image_size
    return own if "image" in unaugmented_sides(params.train) else params.train.image_size or own


def cached_sides(params: Params) -> list[Side]:
    """Sides whose features are computed once and then read: mixed pixels have others each time, so there none are.

    Nor are there of streamed pairs, which no index names.
    """
    if not params.machine.cache_features or params.train.reading == "streaming":
        return []
    mixes_pixels = params.train.mixup in ("image", "coin")
    return [side for side in unaugmented_sides(params.train) if side == "text" or not mixes_pixels]


def without_cache(params: Params) -> list[str]:
    """Return why frozen towers go forward in every step, a sentence each, where a setting could change that."""
    said = {
        "image": "set train.augment.crop_scale to [1.0, 1.0], auto_augment to false, flip_probability to 0 and "
        "train.mixup to text or none",
        "text": "set train.augment.mask_probability to 0",
    }
    frozen = [side for side in dict.fromkeys(params.train.freeze) if side not in cached_sides(params)]
    if not params.machine.cache_features:
        return ["machine.cache_features false: frozen towers go forward in every step"] if frozen else []
    if params.train.reading == "streaming":
        return ["train.reading streaming: frozen towers go forward in every step"] if frozen else []
    return [
        f"the frozen {side} tower goes forward in every step, as it never sees the same twice; {said[side]} to have "
        "its features computed once"
        for side in frozen
    ]


def is_features(side: Tensor) -> bool:
    """Whether the side of a micro-batch is what its tower makes of it, (m, w) float, and not pixels or token ids."""
    return side.dim() == 2 and side.is_floating_point()
