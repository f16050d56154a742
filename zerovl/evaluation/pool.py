"""Embed the pictures and captions of all validation splits with one or more models.

Pictures are streamed from the shards; only embeddings and captions are kept, each embedding once.
Shapes: `I` images, `M` captions, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.sharing import RowsOfAll, facts_of_all, own

Ints = npt.NDArray[np.int64]
_ROWS_AT_ONCE = 1 << 16  # of captions with one text: a caption may stand at any number of pictures
Facts = list[Any]  # of a batch: image ids, keys and lists of captions


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
        batch_size: pictures of a batch, of a source's last one at most; and captions embedded at once.
        ranks: who share the work; all give the same.
    """
    facts: dict[str, list[Facts]] = {}
    total = sum(pictures for pictures, _ in batches.values())
    images = [RowsOfAll(total, ranks) for _ in models]
    first = 0  # row of the source's first picture
    with tqdm(total=total, desc="pictures", unit="", leave=False, disable=not ranks.is_first) as bar:
        for number, (source, (pictures, its_batches)) in enumerate(batches.items()):
            facts[source] = []
            batch_numbers = count(own(ranks, number).start, ranks.world_size)
            for batch_number, batch in zip(batch_numbers, its_batches, strict=False):  # as many as there are batches
                start = first + batch_number * batch_size
                rows = slice(start, start + len(batch.keys))
                for model, its_images in zip(models, images, strict=True):
                    its_images.put(rows, model.encode_pixels(batch.images))
                facts[source].append([list(batch.image_ids), list(batch.keys), [list(its) for its in batch.captions]])
                bar.update(min(ranks.world_size * len(batch.keys), total - bar.n))
            facts[source] = facts_of_all(facts[source], ranks, number)
            first += pictures
    pool = pool_of(facts)
    texts = _encode_captions(pool.captions, models, batch_size, ranks)
    return pool, [Embeddings(its.whole(), text) for its, text in zip(images, texts, strict=True)]


def pool_of(facts: Mapping[str, Sequence[Facts]]) -> Pool:
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
    places = np.fromiter((place[text] for text in captions), np.int64, len(captions))  # (M,)
    by_place = np.argsort(places, kind="stable")  # (M,) captions, text by text
    bounds = np.searchsorted(places[by_place], np.arange(len(distinct) + 1))  # of each text in `by_place`

    def embed(model: Model) -> torch.Tensor:
        whole = RowsOfAll(len(captions), ranks)
        for start, part in _encoded(distinct, model, batch_size, ranks):
            rows = torch.from_numpy(by_place[bounds[start] : bounds[start + len(part)]])
            for some in rows.split(_ROWS_AT_ONCE):
                whole.put(some, part[torch.from_numpy(places[some.numpy()] - start)])
        return whole.whole()

    return [embed(model) for model in models]


def encode_texts(texts: Sequence[str], model: TextModel, batch_size: int, ranks: Ranks) -> torch.Tensor:
    """Embed texts in their order, (n, D), each rank some of the batches."""
    whole = RowsOfAll(len(texts), ranks)
    for start, part in _encoded(texts, model, batch_size, ranks):
        whole.put(slice(start, start + len(part)), part)
    return whole.whole()


def _encoded(
    texts: Sequence[str], model: TextModel, batch_size: int, ranks: Ranks
) -> Iterator[tuple[int, torch.Tensor]]:
    """Embed this rank's batches of texts: the number of the first one, and (n, D)."""
    starts = range(0, len(texts), batch_size)[own(ranks)]
    for start in tqdm(starts, desc="captions", unit="batch", leave=False, disable=not ranks.is_first):
        yield start, model.encode_text(texts[start : start + batch_size], batch_size=batch_size)
