"""Embeddings of pictures by a bundle: what `prepare.filters.semantic_duplicates` asks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from zerovl.model.encoder import Encoder


class EncoderEmbedder:
    """Embeds by an `Encoder`."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.digest = encoder.digest
        self.width = encoder.model.architecture.embed_dim

    def embeddings(self, pictures: Iterable[Image.Image]) -> npt.NDArray[np.float32]:
        """Return (n, D) L2-normalised embeddings of RGB pictures (n,), of which one at a time is in memory."""
        pixels = torch.stack([self._encoder.transform(picture) for picture in pictures])  # (n, 3, H, W)
        made: npt.NDArray[np.float32] = self._encoder.encode_pixels(pixels).numpy()
        return made
