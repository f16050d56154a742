"""The operations of AutoAugment on the planes of a picture; the same pixels as `auto_augment`, its slow reference.

Where an operation replaces each value of a channel by another one, bytes are changed as they lie there: by arithmetic
of whole arrays, or by the table that a histogram gives; what follows such a table is applied to it instead of to the
picture. The rest is Pillow's.

Legend: `H`, `W` pixels.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from zerovl.data.batches.auto_augment import OPERATIONS, Drawn

Planes = npt.NDArray[np.uint8]  # (3, H, W)
Table = npt.NDArray[np.uint8]  # (3, 256): what stands for each value of a channel
Values = npt.NDArray[np.uint8]  # planes or a table
Counts = npt.NDArray[np.int64]  # (3, 256): how often each value is there in a channel

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
    for place, (name, magnitude) in enumerate(operations[through_pillow:], through_pillow):
        if name in BY_HISTOGRAM:
            _look_up(planes, _one_table(_histogram(planes), operations[place:]))
            break
        ON_VALUES[name](planes, magnitude)
    return planes


def _one_table(counts: Counts, operations: Sequence[Drawn]) -> Table:
    """What operations make of each value, the first of them by histogram; `counts` of the planes before them."""
    (first, _), *later = operations
    table = BY_HISTOGRAM[first](counts)
    for name, magnitude in later:
        if name in BY_HISTOGRAM:
            table = np.take_along_axis(BY_HISTOGRAM[name](_moved(counts, table)), table.astype(np.int64), axis=1)
        else:
            ON_VALUES[name](table, magnitude)
    return table


def _moved(counts: Counts, table: Table) -> Counts:
    """How often each value is there once each has been replaced; float64 holds the sums exactly."""
    return np.array([np.bincount(new, old, minlength=256) for new, old in zip(table, counts, strict=True)], np.int64)


def _posterize(values: Values, magnitude: float) -> None:
    values &= np.uint8(256 - 2 ** (8 - int(magnitude)))


def _solarize(values: Values, magnitude: float) -> None:
    values ^= -(values >= magnitude).view(np.uint8)  # 255 where a value turns round, else 0


def _invert(values: Values, _magnitude: float) -> None:
    np.invert(values, out=values)


def _auto_contrast(counts: Counts) -> Table:
    used = counts > 0
    low = used.argmax(axis=1)[:, None]  # (3, 1)
    high = 255 - used[:, ::-1].argmax(axis=1)[:, None]
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = np.clip((_VALUES * scale - low * scale).astype(np.int64), 0, 255)  # (3, 256)
    return np.where(high > low, stretched, _VALUES).astype(np.uint8)


def _equalize(counts: Counts) -> Table:
    highest = 255 - (counts[:, ::-1] > 0).argmax(axis=1)  # (3,)
    step = ((counts[0].sum() - counts[_CHANNELS, highest]) // 255)[:, None]  # (3, 1)
    below = counts.cumsum(axis=1) - counts  # (3, 256) pixels with a lower value
    evened = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    return np.where(step > 0, evened, _VALUES).astype(np.uint8)


def _histogram(planes: Planes) -> Counts:
    _, height, width = planes.shape
    images = [Image.frombuffer("L", (width, height), plane, "raw", "L", 0, 1) for plane in planes]  # the same memory
    return np.array([array("q", image.histogram()) for image in images])  # numpy reads an array faster than a list


def _look_up(planes: Planes, table: Table) -> None:
    """Replace each value v of channel c by table[c, v]."""
    for plane, values in zip(planes, table, strict=True):
        # Of what can do it, the fastest: numpy makes an index of 8 bytes of each value first, and the method of `bytes`
        # looks at each value whether it changes.
        plane.data.cast("B")[:] = bytearray(plane).translate(values.tobytes())


# What replaces a value without looking at others: of planes, or of a table.
ON_VALUES: dict[str, Callable[[Values, float], None]] = {
    "Posterize": _posterize,
    "Solarize": _solarize,
    "Invert": _invert,
}
# What replaces a value by a table that the histogram of its channel gives.
BY_HISTOGRAM: dict[str, Callable[[Counts], Table]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
}
ON_PLANES = frozenset(ON_VALUES) | frozenset(BY_HISTOGRAM)
