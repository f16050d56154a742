"""What filters leave out: one entry for what one filter takes from one sample.

A reason is the name of a filter as `params.yaml` has it. Imported by the processes that pack shards: Pillow alone.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image

from zerovl.images import FORMATS, decode_rgb
from zerovl.picture_looks import exif_orientation
from zerovl.picture_reader import ANY_PIXELS

EXAMPLES = 5  # with a picture, of each reason in a split
_SIDE = 96  # pixels of the longer side of a small picture


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What one filter took from one sample."""

    reason: str
    detail: str
    whole: bool
    key: str
    image_id: int | None
    captions: tuple[str, ...]
    origin: str
    picture: bytes | None = None  # a small JPEG


@dataclass
class FirstExamples:
    """Counts entries by reason; the first `EXAMPLES` of each have a small picture."""

    seen: Counter[str] = field(default_factory=Counter)

    def has_room(self, reason: str) -> bool:
        """Return whether the next entry of a reason is among the first."""
        return self.seen[reason] < EXAMPLES

    def count(self, reason: str) -> bool:
        """Count one entry; returns whether it is among the first."""
        self.seen[reason] += 1
        return self.seen[reason] <= EXAMPLES


def small_picture(data: bytes) -> bytes:
    """Return a stored picture reduced to a longer side of `_SIDE` pixels, as JPEG."""
    small = _quickly_decoded(data) or decode_rgb(data, ANY_PIXELS)
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _quickly_decoded(data: bytes) -> Image.Image | None:
    """Return an upright JPEG at a part of its size; None for what only a picture in the user's own tar can be."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.format not in ("JPEG", "MPO") or exif_orientation(image) != 1:
            return None
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        return image.convert("RGB")
