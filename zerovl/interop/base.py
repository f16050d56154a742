"""What a model in another library's form is: `Format`, and the pictures and captions that it is checked with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.model.encoder import Encoder

_SIZES = ((64, 48), (200, 133), (37, 91), (224, 224))  # width, height
_CAPTIONS = [
    "a red circle",
    "Two skiers on a slope, seen from far away.",
    "dog",
    "a small green square with stripes to the left of a large blue star " * 12,  # longer than any tower reads
]


@dataclass(frozen=True)
class Sample:
    """Pictures and captions, n and m of them, that two libraries must embed alike."""

    pictures: list[Image.Image]
    captions: list[str]
    origin: str  # for the card, as "16 sample pairs of the release"


class Format(Protocol):
    """A form that a model is written in. The next one is a module here and a line in `zerovl/interop/export.py`."""

    name: str  # of `zerovl export --to`
    library: str  # the module that reads it, of the extra `export` or of the core packages
    tolerance: float  # the largest difference of two embeddings that is allowed, component by component
    usage: str  # lines of Python that use it

    def check(self, encoder: Encoder) -> None:
        """Raise `ZeroVLError` with reason and alternative for a model that has no such form."""

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the model's files into an empty folder."""

    def embed(self, folder: Path, sample: Sample) -> tuple[Tensor, Tensor]:
        """Return the embeddings of pictures (n, D) and captions (m, D) by the library, from the folder alone."""


def synthetic_sample() -> Sample:
    """Return drawn pictures of several shapes and captions of several lengths, always the same."""
    generator = np.random.default_rng(0)
    pictures = []
    for width, height in _SIZES:
        coarse = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)  # (H, W, 3)
        pictures.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return Sample(pictures, list(_CAPTIONS), f"{len(pictures)} drawn pictures and {len(_CAPTIONS)} captions")


def check_absent(out: Path) -> None:
    """Raise `ZeroVLError` where `out` is there already."""
    if out.exists():
        raise ZeroVLError(f"--out {out}: is there already; name another folder, or remove it first")


def require(module: str, needed_for: str) -> None:
    """Raise `ZeroVLError` where a module of the extra `export` is not installed."""
    if find_spec(module) is None:
        raise ZeroVLError(f"{needed_for} needs {module}, which is not installed; run `pip install 'zerovl[export]'`")


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference between components of embeddings (n, D); infinity for NaN or another shape."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().nan_to_num(nan=float("inf")).max())
