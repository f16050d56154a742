"""By which pairs of a batch are known to be equal: one integer of the caption and one of the picture.

Shapes: m pairs, L tokens.

Two captions are equal where the text tower would see the same tokens, before any of them is masked: letter case,
spaces and what is cut off count as the tokenizer has them. Two pictures are equal where their stored bytes are. 64 bits
of BLAKE2b: two different ones of a batch of 65536 meet by chance once in 10^10 batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from zerovl.data.batches.sides import CaptionTokenizer, DrawnPair
from zerovl.errors import ZeroVLError

Ids = npt.NDArray[np.int64]
Identify = Callable[[Sequence[DrawnPair]], torch.Tensor | None]


def no_identities(_pairs: Sequence[DrawnPair]) -> None:
    """Equal pairs are negatives of each other: nobody asks."""
    return


@dataclass(frozen=True)
class ContentIdentities:
    """The integers of the chosen captions and of the stored pictures, also where towers' features are stored."""

    tokenize: CaptionTokenizer

    def __call__(self, pairs: Sequence[DrawnPair]) -> torch.Tensor:
        """Return (m, 2) int64."""
        input_ids, attention_mask = self.tokenize([drawn.caption for drawn in pairs])
        return hashed_identities(input_ids, attention_mask, [drawn.pair.sample.image for drawn in pairs])


def hashed_identities(input_ids: Ids, attention_mask: Ids, pictures: Sequence[bytes]) -> torch.Tensor:
    """Return the integers of captions (m, L), not masked yet, and of pictures, m stored ones: (m, 2) int64."""
    captions = [row[mask.astype(bool)].tobytes() for row, mask in zip(input_ids, attention_mask, strict=True)]
    return torch.tensor([[_number(c), _number(p)] for c, p in zip(captions, pictures, strict=True)])


def identify_by(name: str, tokenize: CaptionTokenizer) -> Identify:
    """Return how pairs are identified for `train.equal_pairs`; raises `ZeroVLError` for an unknown name."""
    if name == "negatives":
        return no_identities
    if name == "positives":
        return ContentIdentities(tokenize)
    raise ZeroVLError(f"train.equal_pairs {name!r}: unknown; set it to negatives or positives")


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
