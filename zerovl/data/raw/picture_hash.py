"""A perceptual hash: equal or near for pictures that look alike."""

from __future__ import annotations

import numpy as np
from PIL import Image


def difference_hash(image: Image.Image) -> int:
    """Return 64 bits, row by row: whether a pixel of the 9 x 8 grey miniature is brighter than its left neighbour.

    The dHash of https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html,
    with the same bits as imagehash.dhash.
    """
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))  # (8, 9)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes())
