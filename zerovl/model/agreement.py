"""How well pictures and captions fit by a bundle: what `prepare.filters.agreement` asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from zerovl.model.encoder import Encoder


class EncoderScorer:
    """Scores by the embeddings of an `Encoder`."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.digest = encoder.digest

    def scores(
        self, pictures: Iterable[Image.Image], captions: Sequence[str], owners: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Return the cosine of each caption, (c,), with the one of `pictures`, RGB (n,), that `owners` (c,) says."""
        # One after the other: pixels for the model are much smaller than pictures, which may be of any size.
        pixels = torch.stack([self._encoder.transform(picture) for picture in pictures])  # (n, 3, H, W)
        images = self._encoder.encode_pixels(pixels).numpy()  # (n, D)
        texts = self._encoder.encode_text(captions).numpy()  # (c, D)
        cosines: npt.NDArray[np.float32] = np.einsum("cd,cd->c", images[owners], texts)
        return cosines
