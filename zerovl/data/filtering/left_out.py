"""What filters leave out: one entry for what one filter takes from one sample.

A reason is the name of a filter as `params.yaml` has it. Imported by the processes that pack shards: Pillow alone.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image

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
    """Return the JPEG of a shard reduced to a longer side of `_SIDE` pixels."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
