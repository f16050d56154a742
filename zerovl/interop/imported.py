"""What a reader of another library's folder gives: a model by our names, and a way to ask that library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers.normalizers import Normalizer
from torch import Tensor
from transformers import PreTrainedConfig

from zerovl.interop.base import Sample
from zerovl.model.architecture import Architecture


@dataclass(frozen=True)
class TextSide:
    """The text tower of such a model, with its projection."""

    config: PreTrainedConfig
    pooling: str  # a name of `zerovl/model/pooling.py`
    weights: dict[str, Tensor]  # by the names of `DualEncoder`


@dataclass(frozen=True)
class Imported:
    """A model that is not written yet."""

    architecture: Architecture
    weights: dict[str, Tensor]  # by the names of `DualEncoder`
    tokenizer: Path  # a folder
    library: str  # the module that reads such folders
    embed: Callable[[Sample], tuple[Tensor, Tensor]]  # pictures (n, D) and captions (m, D), by that library
    cleaning: tuple[Normalizer, ...] = ()  # what that library does to captions before its tokenizer reads them
