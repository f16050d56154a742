"""Drawn pictures on their way to where they are decoded, without shards."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zerovl.data.batches.encoded_pictures import EncodedPictures
from zerovl.data.batches.sides import DrawnPair, PicturesAsStored
from zerovl.data.shards import Sample
from zerovl.picture_reader import PictureReader


@dataclass(frozen=True)
class StoredPair:
    """A pair whose picture is in memory; stands where `PicturesAsStored` expects a pair of a shard."""

    sample: Sample

    @property
    def where(self) -> str:
        return f"the picture of sample {self.sample.key}"

    def pixels(self, transform: Callable[[bytes], Tensor]) -> Tensor:
        return transform(self.sample.image)


def as_loaded(images: PicturesAsStored, files: Sequence[bytes]) -> EncodedPictures:
    """What the loader makes of pictures; picture i has key "i" and seed i."""
    samples = [Sample(str(place), data, ["caption"], [place], place, "drawn") for place, data in enumerate(files)]
    return images([DrawnPair(StoredPair(sample), seed, 0, 0) for seed, sample in enumerate(samples)])  # type: ignore[arg-type]


def soft(side: int, seed: int) -> Image.Image:
    """Large soft patches of colour under grey grain."""
    random = np.random.default_rng(seed)
    grid = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    grain = random.normal(0, 5, (side, side, 1))
    patches = np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(patches + grain, 0, 255).astype(np.uint8))


def coloured_blocks(side: int, seed: int) -> Image.Image:
    """Edges between all colours: where decoders that treat halved colours in different ways are furthest apart."""
    cells = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(cells.repeat(8, 0).repeat(8, 1))


def stored(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return the bytes of a picture's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def levels_apart(found: Tensor, expected: Tensor) -> tuple[float, int]:
    """Return the mean and the largest difference of pixels in levels of 256."""
    apart = (found.cpu().int() - expected.cpu().int()).abs()
    return float(apart.float().mean()), int(apart.max())


def planes(file: bytes) -> Tensor:
    """Return a file as `EncodedPicture` has it."""
    return torch.frombuffer(bytearray(file), dtype=torch.uint8)


class Imitated:
    """Decodes on the CPU as nvJPEG does on a GPU: all of a batch or nothing; refuses the files that it is told to."""

    def __init__(self, refused: Sequence[bytes] = (), error: str = "Failed to decode batch: 4") -> None:
        self.refused = [planes(file) for file in refused]
        self.error = error
        self.batches: list[int] = []

    def __call__(self, files: Sequence[Tensor]) -> list[Tensor]:
        self.batches.append(len(files))
        if any(torch.equal(file, other) for file in files for other in self.refused):
            raise RuntimeError(self.error)
        whole = [PictureReader().open(file.numpy().tobytes()).pixels().copy() for file in files]
        return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in whole]
