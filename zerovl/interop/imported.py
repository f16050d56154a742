"""What a reader of another library's folder gives: a model by our names, and a way to ask that library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zerovl.interop.base import Sample
from zerovl.model.architecture import Architecture


@dataclass(frozen=True)
class Imported:
    """A model that is not written yet."""

    architecture: Architecture
    weights: dict[str, Tensor]  # by the names of `DualEncoder`
    tokenizer: Path  # a folder
    library: str  # the module that reads such folders
    embed: Callable[[Sample], tuple[Tensor, Tensor]]  # pictures (n, D) and captions (m, D), by that library
