"""Use a trained model: pictures and captions in, embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from zerovl.device import own_device
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_json
from zerovl.images import BrokenImageError, decode_rgb
from zerovl.model import bundle
from zerovl.model.dual_encoder import DualEncoder, l2_normalise
from zerovl.model.preprocess import EvaluationTransform
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import from_architecture
from zerovl.picture_looks import to_rgb

Picture = str | Path | Image.Image
_Item = TypeVar("_Item")


class Encoder:
    """Embeds pictures and captions with the preprocessing that the model was evaluated with.

    All methods give L2-normalised float32 embeddings on the CPU, so a dot product is a cosine.
    """

    def __init__(self, model: DualEncoder, tokenizer: CaptionTokenizer, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.tokenizer = tokenizer
        self.transform = EvaluationTransform.of(model.architecture)

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> Encoder:
        """Load a bundle's folder; raises `ZeroVLError` where it is not one or is damaged."""
        folder = Path(folder)
        model = bundle.load_model(folder)
        tokenizer = CaptionTokenizer(folder, model.architecture.max_tokens)
        embedded = int(model.architecture.text_config["vocab_size"])
        if tokenizer.vocab_size > embedded:
            raise ZeroVLError(
                f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens, its text tower {embedded}, so they do not "
                "belong together; fetch the model again"
            )
        return cls(model, tokenizer, device)

    @classmethod
    def untrained(cls, folder: Path | str, seed: int, device: str = "auto") -> Encoder:
        """Build the architecture of a bundle with random weights: the baseline of an evaluation."""
        architecture = bundle.load_architecture(Path(folder))
        return cls(from_architecture(architecture, seed), CaptionTokenizer(folder, architecture.max_tokens), device)

    @property
    def temperature(self) -> float:
        """Return what cosines are divided by before a softmax."""
        return float(self.model.temperature.detach())

    @property
    def digest(self) -> str:
        """Return a digest of architecture, tokenizer and weights: equal where two models give the same embeddings."""
        digest = sha256(sha256_json([self.model.architecture.to_json(), self.tokenizer.digest]).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def encode_image(self, items: Sequence[Picture], batch_size: int = 128) -> Tensor:
        """Embed paths or PIL pictures; (N, D). Raises `ZeroVLError` naming a file that is not a picture."""
        return self._in_batches(
            items,
            batch_size,
            lambda part: self.encode_pixels(torch.stack([self.transform(_open(item)) for item in part])),
        )

    def encode_text(self, captions: Sequence[str], batch_size: int = 128) -> Tensor:
        """Embed captions; (N, D). Longer ones are cut at the model's `max_tokens`."""
        return self._in_batches(captions, batch_size, self._encode_captions)

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

    @torch.inference_mode()
    def _encode_captions(self, captions: Sequence[str]) -> Tensor:
        input_ids, attention_mask = self.tokenizer(list(captions))
        ids, mask = (torch.from_numpy(array).to(self.device) for array in (input_ids, attention_mask))
        return self.model.encode_text(ids, mask).float().cpu()

    def _in_batches(
        self, items: Sequence[_Item], batch_size: int, encode: Callable[[Sequence[_Item]], Tensor]
    ) -> Tensor:
        if isinstance(items, str):
            raise ZeroVLError(f"expected a list, found the single text {items!r}; write [{items!r}]")
        parts = [encode(part) for part in _batches(items, batch_size)]
        return torch.cat(parts) if parts else torch.empty(0, self.model.architecture.embed_dim)


def pick_device(name: str) -> torch.device:
    """Return a device by name; "auto" is the first GPU or what ZEROVL_DEVICE says, else the CPU."""
    if name == "auto":
        return own_device()
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ZeroVLError(f"device {name!r}: {error}; use auto, cpu or cuda") from None


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _open(item: Picture) -> Image.Image:
    if isinstance(item, Image.Image):
        return to_rgb(item)
    try:
        return decode_rgb(Path(item).read_bytes())
    except OSError as error:
        raise ZeroVLError(f"{item}: cannot be read ({error.strerror}); name pictures that exist") from None
    except BrokenImageError as error:
        raise ZeroVLError(f"{item}: {error}; leave it out") from None
