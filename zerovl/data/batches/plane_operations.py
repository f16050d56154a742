"""The operations of AutoAugment on the planes of a picture; the same pixels as `auto_augment`, its slow reference.

Where an operation replaces each value of a channel by another one, bytes are changed as they lie there: by arithmetic
of whole arrays, or by the table that a histogram gives. The rest is Pillow's.

Legend: `H`, `W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from zerovl.data.batches.auto_augment import OPERATIONS, Drawn

Planes = npt.NDArray[np.uint8]  # (3, H, W)

_VALUES = np.arange(256)
_CHANNELS = np.arange(3)


def apply_operations(pixels: npt.NDArray[np.uint8], operations: Sequence[Drawn]) -> Planes:
    """Apply operations one after the other to RGB pixels (H, W, 3); returns planes of their own."""
    # All up to the last one that is Pillow's goes through one image: to make it and to take it apart is what costs.
    through_pillow = max((place + 1 for place, (name, _) in enumerate(operations) if name not in ON_PLANES), default=0)
    if through_pillow:
        image = Image.fromarray(pixels)
        for name, magnitude in operations[:through_pillow]:
            image = OPERATIONS[name](image, magnitude)
        pixels = np.asarray(image)
    planes = pixels.transpose(2, 0, 1).copy()
    for name, magnitude in operations[through_pillow:]:
        ON_PLANES[name](planes, magnitude)
    return planes


def _posterize(planes: Planes, magnitude: float) -> None:
    planes &= np.uint8(256 - 2 ** (8 - int(magnitude)))


def _solarize(planes: Planes, magnitude: float) -> None:
    planes ^= -(planes >= magnitude).view(np.uint8)  # 255 where a value turns round, else 0


def _invert(planes: Planes, _magnitude: float) -> None:
    np.invert(planes, out=planes)


def _auto_contrast(planes: Planes, _magnitude: float) -> None:
    used = _histogram(planes) > 0
    low = used.argmax(axis=1)[:, None]  # (3, 1)
    high = 255 - used[:, ::-1].argmax(axis=1)[:, None]
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = np.clip((_VALUES * scale - low * scale).astype(np.int64), 0, 255)  # (3, 256)
    _look_up(planes, np.where(high > low, stretched, _VALUES))


def _equalize(planes: Planes, _magnitude: float) -> None:
    counts = _histogram(planes)
    highest = 255 - (counts[:, ::-1] > 0).argmax(axis=1)  # (3,)
    step = ((planes[0].size - counts[_CHANNELS, highest]) // 255)[:, None]  # (3, 1)
    below = counts.cumsum(axis=1) - counts  # (3, 256) pixels with a lower value
    evened = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    _look_up(planes, np.where(step > 0, evened, _VALUES))


def _histogram(planes: Planes) -> npt.NDArray[np.int64]:
    """How often each value is there in each channel, (3, 256)."""
    _, height, width = planes.shape
    images = [Image.frombuffer("L", (width, height), plane, "raw", "L", 0, 1) for plane in planes]  # the same memory
    return np.array([image.histogram() for image in images])


def _look_up(planes: Planes, table: npt.NDArray[np.int64]) -> None:
    """Replace each value v of channel c by table[c, v], (3, 256)."""
    for plane, values in zip(planes, table.astype(np.uint8), strict=True):
        # Of what can do it, the fastest: numpy makes an index of 8 bytes of each value first.
        plane.data.cast("B")[:] = plane.tobytes().translate(values.tobytes())


ON_PLANES: dict[str, Callable[[Planes, float], None]] = {
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
}
