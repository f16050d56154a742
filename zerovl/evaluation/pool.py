"""Embed the pictures and captions of all validation splits with one or more models.

Pictures are streamed from the shards; only embeddings and captions are kept.
Shapes: `I` images, `M` captions, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.sharing import facts_of_all, own, rows_of_all

Ints = npt.NDArray[np.int64]
_Facts = list[Any]  # of a batch: image ids, keys and lists of captions


class TextModel(Protocol):
    """The part of `zerovl.model.encoder.Encoder` that reads captions."""

    def encode_text(self, captions: Sequence[str], batch_size: int = ...) -> torch.Tensor:
        """Embed captions; normalised, (n, D)."""
        ...


class Model(TextModel, Protocol):
    """The part of `zerovl.model.encoder.Encoder` that an evaluation needs."""

    @property
    def transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Return what turns a picture into pixels, uint8 (3, H, W)."""
        ...

    def encode_pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pixels, uint8 (n, 3, H, W); (n, D)."""
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
    batches: Mapping[str, tuple[int, Iterable[Batch]]],
    models: Sequence[Model],
    batch_size: int,
    ranks: Ranks = ALONE,
) -> tuple[Pool, list[Embeddings]]:
    """Embed every source's samples with every model, each picture read once.

    Equal captions are encoded once: it saves time, and their embeddings are bit-equal, so that they tie.

    Args:
        batches: by source the number of all its pictures, and the batches that are this rank's (`sharing.own`).
        models: whose embeddings are wanted.
        batch_size: captions embedded at once.
        ranks: who share the work; all give the same.
    """
    facts: dict[str, list[_Facts]] = {}
    parts: list[list[torch.Tensor]] = [[] for _ in models]
    total = sum(count for count, _ in batches.values())
    with tqdm(total=total, desc="pictures", unit="", leave=False, disable=not ranks.is_first) as bar:
        for source, (_, its_batches) in batches.items():
            facts[source] = []
            source_parts: list[list[torch.Tensor]] = [[] for _ in models]
            for batch in its_batches:
                for model, its_parts in zip(models, source_parts, strict=True):
                    its_parts.append(model.encode_pixels(batch.images))
                facts[source].append([list(batch.image_ids), list(batch.keys), [list(its) for its in batch.captions]])
                bar.update(min(ranks.world_size * len(batch.keys), total - bar.n))
            facts[source] = facts_of_all(facts[source], ranks)
            sizes = [len(keys) for _, keys, _ in facts[source]]
            for whole, its_parts in zip(parts, source_parts, strict=True):
                whole.append(rows_of_all(its_parts, sizes, ranks))
    pool = _pool_of(facts)
    texts = _encode_captions(pool.captions, models, batch_size, ranks)
    images = [torch.cat(its_parts) for its_parts in parts]
    return pool, [Embeddings(image, text) for image, text in zip(images, texts, strict=True)]


def _pool_of(facts: Mapping[str, Sequence[_Facts]]) -> Pool:
    """Put together what the batches of each source said of their samples."""
    rows: list[tuple[int, int, int]] = []  # source, row, image_id
    keys: list[str] = []
    captions: list[str] = []
    owners: list[int] = []
    for number, its_facts in enumerate(facts.values()):
        first = len(rows)
        for ids, its_keys, its_captions in its_facts:
            for image_id, key, of_picture in zip(ids, its_keys, its_captions, strict=True):
                captions += of_picture
                owners += [len(rows)] * len(of_picture)
                rows.append((number, len(rows) - first, image_id))
                keys.append(key)
    columns = np.array(rows, np.int64).reshape(-1, 3)
    source, row, image_id = columns.T.copy()
    return Pool(tuple(facts), source, row, image_id, tuple(keys), tuple(captions), np.array(owners, np.int64))


def _encode_captions(
    captions: Sequence[str], models: Sequence[Model], batch_size: int, ranks: Ranks
) -> list[torch.Tensor]:
    """Embed captions, (M, D) a model, distinct ones alone, sorted by length so that a batch pads little."""
    distinct = sorted(set(captions), key=lambda text: (len(text), text))
    place = {text: row for row, text in enumerate(distinct)}
    rows = torch.tensor([place[text] for text in captions])
    return [encode_texts(distinct, model, batch_size, ranks)[rows] for model in models]


def encode_texts(texts: Sequence[str], model: TextModel, batch_size: int, ranks: Ranks) -> torch.Tensor:
    """Embed texts in their order, (n, D), each rank some of the batches."""
    batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    bar = tqdm(batches[own(ranks)], desc="captions", unit="batch", leave=False, disable=not ranks.is_first)
    parts = [model.encode_text(batch, batch_size=batch_size) for batch in bar]
    return rows_of_all(parts, [len(batch) for batch in batches], ranks)
