"""Embed the pictures and captions of all validation splits with one or more models.

Pictures are streamed from the shards; only embeddings and captions are kept.
Shapes: `I` images, `M` captions, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

Ints = npt.NDArray[np.int64]
TEXT_SLICES = 50  # steps of the progress bar over captions


class Model(Protocol):
    """The part of `zerovl.model.encoder.Encoder` that an evaluation needs."""

    @property
    def transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Return what turns a picture into pixels, uint8 (3, H, W)."""
        ...

    def encode_pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pixels, uint8 (n, 3, H, W); (n, D)."""
        ...

    def encode_text(self, captions: Sequence[str], batch_size: int = ...) -> torch.Tensor:
        """Embed captions; (n, D)."""
        ...


class Batch(Protocol):
    """Some samples of one split, as `zerovl.data.batches.loader.evaluation_batches` gives them."""

    @property
    def images(self) -> torch.Tensor:
        """Return pixels, uint8 (n, 3, H, W)."""
        ...

    @property
    def captions(self) -> Sequence[Sequence[str]]:
        """Return the captions of each sample."""
        ...

    @property
    def image_ids(self) -> Sequence[int]:
        """Return each picture's number in its source."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Return each sample's name in its shard."""
        ...


@dataclass(frozen=True)
class Pool:
    """All samples, source after source, in the order of their splits."""

    sources: tuple[str, ...]
    image_source: Ints  # (I,) position in `sources`
    image_row: Ints  # (I,) row in the source's index
    image_id: Ints  # (I,) as the source numbers them
    keys: tuple[str, ...]  # (I,)
    captions: tuple[str, ...]  # (M,)
    caption_image: Ints  # (M,) position among the I images

    @cached_property
    def group(self) -> Ints:
        """Return (I,) a number for each distinct (source, image_id): equal ids of two sources are two pictures."""
        pairs = np.stack([self.image_source, self.image_id], axis=1)
        return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def images_of(self, source: str) -> Ints:
        """Return the rows of a source's images."""
        return np.flatnonzero(self.image_source == self.sources.index(source))

    def captions_of(self, source: str) -> Ints:
        """Return the rows of a source's captions."""
        return np.flatnonzero(self.image_source[self.caption_image] == self.sources.index(source))


@dataclass(frozen=True)
class Embeddings:
    """A model's embeddings of a pool, normalised, on the CPU."""

    image: torch.Tensor  # (I, D)
    text: torch.Tensor  # (M, D)


def encode(
    batches: Mapping[str, tuple[int, Iterable[Batch]]], models: Sequence[Model], batch_size: int
) -> tuple[Pool, list[Embeddings]]:
    """Embed every source's samples with every model, each picture read once.

    `batches` gives by source the number of pictures and the batches. Equal captions are encoded once:
    it saves time, and their embeddings are bit-equal, so that they tie.
    """
    rows: list[tuple[int, int, int]] = []  # source, row, image_id
    keys: list[str] = []
    captions: list[str] = []
    owners: list[int] = []
    parts: list[list[torch.Tensor]] = [[] for _ in models]
    with tqdm(total=sum(count for count, _ in batches.values()), desc="pictures", unit="", leave=False) as bar:
        for number, (_, its_batches) in enumerate(batches.values()):
            first = len(rows)
            for batch in its_batches:
                for model, its_parts in zip(models, parts, strict=True):
                    its_parts.append(model.encode_pixels(batch.images))
                for image_id, key, its_captions in zip(batch.image_ids, batch.keys, batch.captions, strict=True):
                    captions += its_captions
                    owners += [len(rows)] * len(its_captions)
                    rows.append((number, len(rows) - first, image_id))
                    keys.append(key)
                bar.update(len(batch.keys))
    columns = np.array(rows, np.int64).reshape(-1, 3)
    pool = Pool(
        tuple(batches), columns[:, 0], columns[:, 1], columns[:, 2], tuple(keys), tuple(captions), np.array(owners)
    )
    texts = _encode_captions(captions, models, batch_size)
    images = [torch.cat(its_parts) for its_parts in parts]
    return pool, [Embeddings(image, text) for image, text in zip(images, texts, strict=True)]


def _encode_captions(captions: list[str], models: Sequence[Model], batch_size: int) -> list[torch.Tensor]:
    """Embed captions, (M, D) a model, distinct ones alone, sorted by length so that a batch pads little."""
    distinct = sorted(set(captions), key=lambda text: (len(text), text))
    place = {text: row for row, text in enumerate(distinct)}
    rows = torch.tensor([place[text] for text in captions])
    step = batch_size * max(1, len(distinct) // (batch_size * TEXT_SLICES))
    embeddings = []
    with tqdm(total=len(distinct) * len(models), desc="captions", unit="", leave=False) as bar:
        for model in models:
            parts = []
            for start in range(0, len(distinct), step):
                part = distinct[start : start + step]
                parts.append(model.encode_text(part, batch_size=batch_size))
                bar.update(len(part))
            embeddings.append(torch.cat(parts)[rows])
    return embeddings
