"""Batches for training from tars that are read as they come: what `zerovl.data.batches.loader` makes of an index.

Legend: `b` a rank's batch, `m` micro-batch.

A loader process of a rank is one reader of each source. It makes every R-th micro-batch of its rank, of R processes,
and takes the pairs from its own pipelines, so its pairs are a function of (seed, ranks, processes, where it began).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zerovl.data.batches.ahead import Ahead, NothingAhead
from zerovl.data.batches.identities import Identify, no_identities
from zerovl.data.batches.loader import (
    MICRO_BATCH,
    PREFETCH_BYTES,
    MicroBatch,
    MicroBatchesOfSteps,
    TrainBatches,
    check_divides,
)
from zerovl.data.batches.randomness import keys64
from zerovl.data.batches.sides import Captions, CaptionTokenizer, DrawnPair, TextSide, Transform
from zerovl.data.shards import Sample
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.order import Place
from zerovl.data.streams.places import Begin, Places
from zerovl.data.streams.reader import SourceReader, StreamedSource
from zerovl.data.streams.schedule import StreamSchedule
from zerovl.errors import ZeroVLError
from zerovl.images import FORMATS, BrokenImageError
from zerovl.params import AugmentParams


@dataclass(frozen=True)
class StreamedMicroBatch(MicroBatch):
    """A micro-batch, with how far its reader has come in the sources that it took pairs of."""

    worker: int = 0
    places: dict[str, Place] = field(default_factory=dict)
    lost: dict[str, Lost] = field(default_factory=dict)

    def pin_memory(self) -> StreamedMicroBatch:
        """Return a copy in page-locked memory."""
        pinned = super().pin_memory()
        return replace(
            self,
            images=pinned.images,
            input_ids=pinned.input_ids,
            attention_mask=pinned.attention_mask,
            identities=pinned.identities,
        )


class StreamedPair:
    """A pair that was read; stands where the text side of a micro-batch expects a `zerovl.data.batches.sides.Pair`."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.source = sample.source


@dataclass
class StreamedMicroBatches(MicroBatchesOfSteps):
    """Gives micro-batch i of a rank's run; each process that asks must ask for every `workers`-th, in order."""

    sources: dict[str, StreamedSource]
    sampler: StreamSchedule
    begin: Begin
    transform: Transform
    captions: TextSide
    identify: Identify
    max_pixels: int
    micro_batch: int
    rank: int
    world_size: int
    workers: int  # loader processes of a rank, at least 1: this one where there are none
    start_step: int
    ahead: Ahead = field(default_factory=NothingAhead)

    def __post_init__(self) -> None:
        self._readers: dict[str, tuple[SourceReader, Iterator[Sample]]] = {}
        self._next: int | None = None

    def __getitem__(self, index: int) -> StreamedMicroBatch:
        if self._next not in (None, index):
            raise RuntimeError(f"micro-batch {index} was asked for where {self._next} is the next of this reader")
        self._next = index + self.workers
        step, part = divmod(index, self.per_step)
        step += self.start_step
        # By the step and not by the process: after a resume each part of a step has the reader that it had before.
        return self._make(step, self.positions(self.rank, part), (step * self.per_step + part) % self.workers)

    def _make(self, step: int, positions: range, worker: int) -> StreamedMicroBatch:
        names = self.sampler.of_pairs(step, positions)
        made = [self._pair(name, worker, step, position) for position, name in zip(positions, names, strict=True)]
        drawn = [each for each, _ in made]
        images = torch.stack([pixels for _, pixels in made])  # (m, 3, H, W)
        input_ids, attention_mask = self.captions(drawn)  # (m, L)
        touched = {name: self._reader(name, worker)[0] for name in sorted(set(names))}
        return StreamedMicroBatch(
            images,
            input_ids,
            attention_mask,
            [each.pair.sample.key for each in drawn],
            self.sampler.name(step),
            self.identify(drawn),
            worker,
            {name: reader.place for name, reader in touched.items()},
            {name: reader.lost.take() for name, reader in touched.items()},
        )

    def _pair(self, name: str, worker: int, step: int, position: int) -> tuple[DrawnPair, Tensor]:
        """The next pair of a source whose picture decodes, with its pixels; what does not is counted.

        Raises `ZeroVLError` where a whole chapter has none: its reader sees samples, and would go on for ever.
        """
        reader, samples = self._reader(name, worker)
        begun = reader.place.chapter
        while True:
            pair: Any = StreamedPair(next(samples))
            drawn = DrawnPair(pair, *keys64(3, self.sampler.seed, step, position, pair.sample.key))
            try:
                _check_size(pair.sample.image, self.max_pixels)
                return drawn, self.transform(pair.sample.image, drawn.image_seed)
            except BrokenImageError as error:
                reader.lost.add(str(error), pair.sample.key)
                if reader.place.chapter > begun + 1:
                    raise ZeroVLError(
                        f"train.streaming: {name}: a whole chapter has no picture that decodes "
                        f"({reader.lost.most_frequent()}); correct its urls, or prepare.max_pixels"
                    ) from None

    def _reader(self, name: str, worker: int) -> tuple[SourceReader, Iterator[Sample]]:
        if name not in self._readers:
            number = self.rank * self.workers + worker
            share, place = self.begin.of(name, number)
            reader = SourceReader(self.sources[name], share, self.sampler.seed, place)
            self._readers[name] = reader, iter(reader)
        return self._readers[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}, "_next": None}


def _check_size(data: bytes, max_pixels: int) -> None:
    """Raise `BrokenImageError` by its header for a picture of more pixels, which nobody has left out before."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size check below is ours, and stricter
            width, height = Image.open(io.BytesIO(data), formats=FORMATS).size
    except Image.DecompressionBombError as error:
        raise BrokenImageError(str(error)) from None
    except Exception:  # whatever Pillow raises for hostile bytes: the transform gives the reason
        return
    if width * height > max_pixels:
        raise BrokenImageError(f"{width}x{height} pixels, more than {max_pixels}")


def streamed_batches(
    *,
    sources: list[StreamedSource],
    schedule: StreamSchedule,
    places: Places,
    tokenize: CaptionTokenizer,
    transform: Transform,
    augment: AugmentParams,
    max_pixels: int,
    micro_batch: int,
    rank: int,
    world_size: int,
    start_step: int = 0,
    workers: int = 0,
    identify: Identify = no_identities,
    arrange: Callable[[Iterator[MicroBatch]], Iterator[MicroBatch]] = iter,
    size_key: str = MICRO_BATCH,
    prefetch_bytes: int = PREFETCH_BYTES,
) -> TrainBatches:
    """Give a rank's batches of the steps from `start_step` on, from where `places` says that its readers are.

    Raises `ZeroVLError` where the batch does not divide, and later, in `next`, where a source has no usable pair or
    cannot be read.
    """
    check_divides(schedule.batch_size, world_size, micro_batch)
    dataset = StreamedMicroBatches(
        {source.name: source for source in sources},
        schedule,
        places.begin,
        transform,
        Captions(tokenize, augment.mask_probability),
        identify,
        max_pixels,
        micro_batch,
        rank,
        world_size,
        max(1, workers),
        start_step,
    )

    def noted(part: MicroBatch) -> MicroBatch:
        if isinstance(part, StreamedMicroBatch):
            places.note(part.worker, part.places, part.lost)
        return part

    return TrainBatches(dataset, workers, lambda arriving: arrange(map(noted, arriving)), size_key, prefetch_bytes)
