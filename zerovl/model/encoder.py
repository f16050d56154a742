"""Use a trained model: pictures and captions in, embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.images import BrokenImageError, decode_rgb
from zerovl.model import bundle
from zerovl.model.architecture import load_architecture
from zerovl.model.dual_encoder import l2_normalise
from zerovl.model.text import CaptionTokenizer, load_tokenizer
from zerovl.model.text_encoder import TextEncoder, digest_of
from zerovl.model.towers import from_architecture
from zerovl.picture_looks import to_rgb

Picture = str | Path | Image.Image


class Encoder(TextEncoder):
    """Embeds pictures and captions with the preprocessing that the model was evaluated with.

    All methods give L2-normalised float32 embeddings on the CPU, so a dot product is a cosine.
    """

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> Encoder:
        """Load a bundle's folder; raises `ZeroVLError` where it is not one or is damaged."""
        folder = Path(folder)
        model = bundle.load_model(folder)
        return cls(model, load_tokenizer(folder, model.architecture), device)

    @classmethod
    def untrained(cls, folder: Path | str, seed: int, device: str = "auto") -> Encoder:
        """Build the architecture of a bundle with random weights: the baseline of an evaluation."""
        architecture = load_architecture(Path(folder))
        return cls(from_architecture(architecture, seed), CaptionTokenizer(folder, architecture.max_tokens), device)

    @property
    def temperature(self) -> float:
        """Return what cosines are divided by before a softmax."""
        return float(self.model.temperature.detach())

    @property
    def digest(self) -> str:
        """Return a digest of architecture, tokenizer and weights: equal where two models give the same embeddings."""
        return digest_of(self.model.architecture, self.tokenizer, self.model.state_dict())

    def encode_image(self, items: Sequence[Picture], batch_size: int = 128) -> Tensor:
        """Embed paths or PIL pictures; (N, D). Raises `ZeroVLError` naming a file that is not a picture."""
        return self._in_batches(
            items,
            batch_size,
            lambda part: self.encode_pixels(torch.stack([self.transform(_open(item)) for item in part])),
        )

    @torch.inference_mode()
    def encode_pixels(self, images: Tensor) -> Tensor:
        """Embed pixels that `transform` made, uint8 (n, 3, H, W); (n, D)."""
        return self.model.encode_image(images.to(self.device)).float().cpu()

    @torch.inference_mode()
    def tower_features(self, images: Tensor) -> Tensor:
        """Turn pixels that `transform` made, uint8 (n, 3, H, W), into what the image tower gives: (n, w)."""
        features: Tensor = self.model.image_tower(self.model.normalise(images.to(self.device)))
        return features.float().cpu()

    @torch.inference_mode()
    def embed_features(self, features: Tensor) -> Tensor:
        """Project what `tower_features` gave, (n, w), and normalise it: the embeddings of `encode_pixels`, (n, D)."""
        return l2_normalise(self.model.image_projection(features.to(self.device))).float().cpu()


def _open(item: Picture) -> Image.Image:
    if isinstance(item, Image.Image):
        return to_rgb(item)
    try:
        return decode_rgb(Path(item).read_bytes())
    except OSError as error:
        raise ZeroVLError(f"{item}: cannot be read ({error.strerror}); name pictures that exist") from None
    except BrokenImageError as error:
        raise ZeroVLError(f"{item}: {error}; leave it out") from None
