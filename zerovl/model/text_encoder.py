"""Use the text half of a trained model: captions in, embeddings out.

A query by words needs no more. Without an image tower nothing of timm is imported, whose list of models is a tenth of
what the import of `zerovl.model.encoder` takes. `zerovl.model.query_encoder` does the same without torch for
the usual families.

Shapes: `N` captions, `D` embedding width, `w` width of the image tower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from zerovl.bundle_files import WEIGHTS
from zerovl.device import own_device
from zerovl.errors import ZeroVLError
from zerovl.model import bundle
from zerovl.model.architecture import Architecture, load_architecture
from zerovl.model.digest import model_digest
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.preprocess import EvaluationTransform
from zerovl.model.text import CaptionTokenizer, load_tokenizer
from zerovl.model.undrawn import undrawn

_IMAGE_TOWER = "image_tower."  # how names of its weights begin
_Item = TypeVar("_Item")


class TextEncoder:
    """Embeds captions as the whole model does.

    All methods give L2-normalised float32 embeddings on the CPU, so a dot product is a cosine.
    """

    def __init__(self, model: DualEncoder, tokenizer: CaptionTokenizer, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.tokenizer = tokenizer
        self.transform = EvaluationTransform.of(model.architecture)  # of the pictures that captions are compared with

    def encode_text(self, captions: Sequence[str], batch_size: int = 128) -> Tensor:
        """Embed captions; (N, D). Longer ones are cut at the model's `max_tokens`."""
        return self._in_batches(captions, batch_size, self._encode_captions)

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


class QueryEncoder(TextEncoder):
    """The text half of a bundle, which knows what the whole model is called by."""

    def __init__(self, model: DualEncoder, tokenizer: CaptionTokenizer, digest: str, device: str = "auto") -> None:
        super().__init__(model, tokenizer, device)
        self.digest = digest  # of the whole model, as `Encoder.digest`

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> QueryEncoder:
        """Load a bundle's text half; raises `ZeroVLError` where the folder is not one, or that half is damaged.

        The weights of the image tower are read for the digest alone.
        """
        from zerovl.model.text_towers import create_text_tower, text_config_from  # and transformers

        folder = Path(folder)
        architecture = load_architecture(folder)
        tokenizer = load_tokenizer(folder, architecture)
        weights = bundle.read_weights(folder / WEIGHTS)
        projection = weights.get("image_projection.weight", torch.empty(0, 1))  # (D, w)
        text_tower = undrawn(lambda: create_text_tower(text_config_from(architecture.text_config)))
        model = DualEncoder(architecture, _NoImageTower(projection.shape[-1]), text_tower)
        own = {name: tensor for name, tensor in weights.items() if not name.startswith(_IMAGE_TOWER)}
        bundle.load_weights(model, own, str(folder / WEIGHTS))
        return cls(model, tokenizer, digest_of(architecture, tokenizer, weights), device)


class _NoImageTower(nn.Module):
    """Stands where the image tower is left out; it has its width w and computes nothing."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def digest_of(architecture: Architecture, tokenizer: CaptionTokenizer, weights: Mapping[str, Tensor]) -> str:
    """Return `model_digest` of weights in tensors."""
    return model_digest(architecture, tokenizer, weights, _in_bytes)


def _in_bytes(tensor: Tensor) -> memoryview:
    values = tensor.detach().cpu()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.contiguous().reshape(-1).view(torch.uint8).numpy().data


def pick_device(name: str) -> torch.device:
    """Return a device by name; "auto" is the first GPU or what ZEROVL_DEVICE says, else the CPU.

    Raises `ZeroVLError` for a name that torch does not know.
    """
    if name == "auto":
        return own_device()
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ZeroVLError(f"device {name!r}: {error}; use auto, cpu or cuda") from None


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
