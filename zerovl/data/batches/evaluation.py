"""Batches for evaluation: all samples of a source's split, in the order of its index.

Legend: `n` pictures of a batch, `H`, `W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch.utils.data import Dataset

from zerovl.data.batches.workers import OrderedLoader
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.data.split_reader import SplitReader


@dataclass(frozen=True)
class EvaluationBatch:
    """Consecutive samples of a source's split, ready for the towers."""

    images: torch.Tensor  # (n, 3, H, W) uint8
    captions: list[list[str]]  # n, all captions of each picture
    image_ids: list[int]  # n
    keys: list[str]  # n


@dataclass(frozen=True)
class EvaluationSlices(Dataset[EvaluationBatch]):
    """Gives slice i of a source's split: rows [i * batch_size, (i + 1) * batch_size) of its index."""

    reader: SplitReader
    source: str
    pairs: int
    transform: Callable[[Image.Image], torch.Tensor]
    batch_size: int

    def __len__(self) -> int:
        return -(-self.pairs // self.batch_size)

    def __getitem__(self, index: int) -> EvaluationBatch:
        rows = range(index * self.batch_size, min((index + 1) * self.batch_size, self.pairs))
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
) -> OrderedLoader[EvaluationBatch]:
    """Give all samples of a source's split in the order of its index; closable, as `train_batches`.

    `transform` makes an RGB picture a uint8 tensor (3, H, W); with workers it must be picklable.
    """
    reader = SplitReader(manifest, shards, split)
    dataset = EvaluationSlices(reader, source, manifest.pairs(source, split), transform, batch_size)
    return OrderedLoader(dataset, workers, prefetch=workers)
