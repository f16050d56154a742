"""Batches for evaluation: all samples of a source's split, in the order of its index.

Legend: `n` pictures of a batch, `H`, `W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch.utils.data import Dataset

from zerovl.data.batches.workers import OrderedLoader
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.data.split_reader import SplitReader

EVERY = slice(None)  # batch of a split


@dataclass(frozen=True)
class EvaluationBatch:
    """Consecutive samples of a source's split, ready for the towers."""

    images: torch.Tensor  # (n, 3, H, W) uint8
    captions: list[list[str]]  # n, all captions of each picture
    image_ids: list[int]  # n
    keys: list[str]  # n


@dataclass(frozen=True)
class EvaluationSlices(Dataset[EvaluationBatch]):
    """Gives slices of a source's split; number k has rows [k * batch_size, (k + 1) * batch_size) of its index."""

    reader: SplitReader
    source: str
    pairs: int
    transform: Callable[[Image.Image], torch.Tensor]
    batch_size: int
    numbers: Sequence[int]  # of the slices that are given

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> EvaluationBatch:
        number = self.numbers[index]
        rows = range(number * self.batch_size, min((number + 1) * self.batch_size, self.pairs))
        samples, images = [], []
        for row in rows:
            sample, picture = self.reader.read(self.source, row)
            samples.append(sample)
            images.append(self.transform(picture))
        return EvaluationBatch(
            torch.stack(images),
            [sample.captions for sample in samples],
            [sample.image_id for sample in samples],
            [sample.key for sample in samples],
        )


def evaluation_batches(
    manifest: Manifest,
    shards: ShardReader,
    source: str,
    split: str,
    transform: Callable[[Image.Image], torch.Tensor],
    batch_size: int,
    workers: int = 0,
    share: slice = EVERY,
) -> OrderedLoader[EvaluationBatch]:
    """Give all samples of a source's split in the order of its index; closable, as `train_batches`.

    `transform` makes an RGB picture a uint8 tensor (3, H, W); with workers it must be picklable. Of the split's
    batches those of `share` are given: what a batch holds does not depend on who reads it.
    """
    reader = SplitReader(manifest, shards, split)
    pairs = manifest.pairs(source, split)
    numbers = range(-(-pairs // batch_size))[share]
    dataset = EvaluationSlices(reader, source, pairs, transform, batch_size, numbers)
    return OrderedLoader(dataset, workers, prefetch=workers, lower="evaluate.batch_size")
