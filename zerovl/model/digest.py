"""Tell whether two models are the same: by one digest of architecture, tokenizer and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TypeVar

from zerovl.files import sha256_json
from zerovl.model.architecture import Architecture
from zerovl.model.text import CaptionTokenizer

_Array = TypeVar("_Array")


def model_digest(
    architecture: Architecture,
    tokenizer: CaptionTokenizer,
    weights: Mapping[str, _Array],
    in_bytes: Callable[[_Array], memoryview],
) -> str:
    """Return a digest of architecture, tokenizer and weights: equal where two models give the same embeddings.

    Weights may be those of a model or of its file, which may keep them in 16 bits: a model that is loaded has float32,
    and of that `in_bytes` gives the bytes.
    """
    digest = sha256(sha256_json([architecture.to_json(), tokenizer.digest]).encode())
    for name, array in sorted(weights.items(), key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(in_bytes(array))
    return digest.hexdigest()
