"""By which pairs of a batch are known to be equal: one integer of the caption and one of the picture.

Shapes: m pairs, L tokens.

Two captions are equal where the text tower would see the same tokens, before any of them is masked: letter case,
spaces and what is cut off count as the tokenizer has them. Two pictures are equal where their stored bytes are. 64 bits
of BLAKE2b: two different ones of a batch of 65536 meet by chance once in 10^10 batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from zerovl.errors import ZeroVLError

Ids = npt.NDArray[np.int64]
Identify = Callable[[Ids, Ids, Sequence[bytes]], torch.Tensor | None]


def no_identities(_input_ids: Ids, _attention_mask: Ids, _pictures: Sequence[bytes]) -> None:
    """Equal pairs are negatives of each other: nobody asks."""
    return


def hashed_identities(input_ids: Ids, attention_mask: Ids, pictures: Sequence[bytes]) -> torch.Tensor:
    """Return the integers of captions (m, L), not masked yet, and of pictures, m stored ones: (m, 2) int64."""
    captions = [row[mask.astype(bool)].tobytes() for row, mask in zip(input_ids, attention_mask, strict=True)]
    return torch.tensor([[_number(c), _number(p)] for c, p in zip(captions, pictures, strict=True)])


def identify_by(name: str) -> Identify:
    """Return how pairs are identified for `train.equal_pairs`; raises `ZeroVLError` for an unknown name."""
    if name not in _KINDS:
        raise ZeroVLError(f"train.equal_pairs {name!r}: unknown; set it to one of {', '.join(_KINDS)}")
    return _KINDS[name]


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


_KINDS: Mapping[str, Identify] = {"negatives": no_identities, "positives": hashed_identities}
