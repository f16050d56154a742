"""Embeddings that are there already, in a file of `zerovl embed`, a part at a time: what the two kinds share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zerovl.data.raw.records import Picture
from zerovl.errors import ZeroVLError
from zerovl.indexing.listing import IDENTITY_BYTES, Listed

_NO_FILE = bytes(IDENTITY_BYTES)  # identity of what was not embedded from a file that was seen
_TOLERANCE = 1e-3  # of a norm: embeddings that are normalised keep their last bit


@dataclass(frozen=True)
class StoredPart:
    """Some pictures with their embeddings."""

    keys: list[str]
    embeddings: npt.NDArray[np.float32]  # (n, D), of length 1
    places: list[Listed] | None  # where they lie, where that is known


class StoredEmbeddings(Protocol):
    """A file of embeddings that is open and was checked."""

    model: str  # digest of what made them, "" where the file does not say
    images: str  # the folder or tar of the pictures, "" where it does not say

    def parts(self, size: int) -> Iterator[StoredPart]:
        """Give all pictures, each once, up to `size` at a time; raises `ZeroVLError` for what is no embedding."""


def normalised(file: Path, found: npt.NDArray[Any], first: int) -> npt.NDArray[np.float32]:
    """Return embeddings (n, D) of length 1; raises `ZeroVLError` naming the row, of which `first` is the first."""
    embeddings: npt.NDArray[np.float32] = found.astype(np.float32)
    norms = np.linalg.norm(embeddings, axis=1)  # (n,)
    usable = np.isfinite(norms) & (norms > 0)
    if not usable.all():
        raise ZeroVLError(f"{file}: row {first + int(np.argmin(usable))} is not finite, or is zero")
    off = np.abs(norms - 1) > _TOLERANCE  # made elsewhere
    embeddings[off] /= norms[off, None]
    return embeddings


def place(key: str, path: str, offset: int, size: int | None) -> Listed:
    """Return where a picture lies, relative to the file's `images`; `size` None: its whole file."""
    return Listed(key, path, Picture(path, offset, size), _NO_FILE)
