"""Batches for training, made by worker processes from shards and manifest.

Legend: `B` global batch, `b` a rank's batch (B / world size), `m` micro-batch, `L` tokens, `H`, `W` pixels.

Nothing here has a state that must be saved. The pairs of a step come from the sampler, and every
draw for a pair (caption, crop, AutoAugment, token masking) is a function of (seed, step, position
in the global batch, key): the same for every number of workers and ranks, and after every resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from types import TracebackType
from typing import Protocol

import torch
from torch.utils.data import Dataset

from zerovl.data.batches.ahead import Ahead, NothingAhead
from zerovl.data.batches.arriving import Arriving
from zerovl.data.batches.encoded_pictures import EncodedPictures
from zerovl.data.batches.features import StoredFeatures
from zerovl.data.batches.identities import Identify, no_identities
from zerovl.data.batches.prefetch_bound import ByteBound
from zerovl.data.batches.randomness import keys64
from zerovl.data.batches.sampling import GlobalBatch, Sampler
from zerovl.data.batches.sides import (
    Captions,
    CaptionTokenizer,
    DrawnPair,
    ImageSide,
    Keys,
    Pair,
    StoredCaptions,
    StoredKeys,
    StoredPictures,
    TextSide,
    sample_key,
)
from zerovl.data.batches.workers import OrderedLoader
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.data.split_reader import SplitReader
from zerovl.device import uses_gpu
from zerovl.errors import ZeroVLError
from zerovl.params import AugmentParams

MICRO_BATCH = "train.micro_batch"
PREFETCH_BYTES = 2 << 30  # a rank; at 224 pixels 14,000 pairs


@dataclass(frozen=True)
class MicroBatch:
    """Pairs that go through the towers at once, m of them."""

    # (m, 3, H, W) uint8, or what becomes that on the device; or (m, w) float32, what a frozen tower makes of them
    images: torch.Tensor | EncodedPictures
    input_ids: torch.Tensor  # (m, L) int64; or (m, w) float32, what a frozen tower makes of them
    attention_mask: torch.Tensor  # (m, L) int64; (m, 0) beside features
    keys: list[str]  # m
    source: str
    identities: torch.Tensor | None = None  # (m, 2) int64, of caption and picture; None: nobody asks which are equal

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors as they travel from a worker."""
        images = self.images.nbytes if isinstance(self.images, torch.Tensor) else self.images.packed_nbytes
        identities = 0 if self.identities is None else self.identities.nbytes
        return images + self.input_ids.nbytes + self.attention_mask.nbytes + identities

    def pin_memory(self) -> MicroBatch:
        """Return a copy in page-locked memory, from where a GPU copies while it computes; the loader calls it."""
        images = self.images.pin_memory()
        input_ids, mask = self.input_ids.pin_memory(), self.attention_mask.pin_memory()
        identities = None if self.identities is None else self.identities.pin_memory()
        return MicroBatch(images, input_ids, mask, self.keys, self.source, identities)


@dataclass(frozen=True)
class StepBatch:
    """What one rank sees in a step: b pairs in b / m micro-batches, of which the first is there."""

    step: int
    source: str
    micro_batches: Sequence[MicroBatch]


class HasSteps(Protocol):
    """Says how many steps a run has, and of how many pairs."""

    @property
    def steps(self) -> int:
        """Number of global batches."""
        ...

    @property
    def batch_size(self) -> int:
        """Pairs of a global batch."""
        ...


class MicroBatchesOfSteps(Dataset[MicroBatch]):
    """Gives a rank's micro-batches one after the other, `per_step` for each step from `start_step` on."""

    sampler: HasSteps
    micro_batch: int
    world_size: int
    start_step: int
    ahead: Ahead

    @property
    def per_step(self) -> int:
        """Micro-batches of a rank in one step."""
        return self.sampler.batch_size // self.world_size // self.micro_batch

    def __len__(self) -> int:
        return max(0, self.sampler.steps - self.start_step) * self.per_step

    def positions(self, rank: int, part: int) -> range:
        """Return where in the global batch the pairs of a rank's micro-batch `part` of a step stand."""
        first = (rank * self.per_step + part) * self.micro_batch
        return range(first, first + self.micro_batch)


@dataclass(frozen=True)
class MicroBatches(MicroBatchesOfSteps):
    """Gives micro-batch i of a rank's run: micro-batch i % (b / m) of step start_step + i // (b / m)."""

    reader: SplitReader
    sampler: Sampler
    images: ImageSide
    captions: TextSide
    key_of: Keys
    identify: Identify
    micro_batch: int
    seed: int
    rank: int
    world_size: int
    start_step: int
    ahead: Ahead

    def __getitem__(self, index: int) -> MicroBatch:
        step, part = divmod(index, self.per_step)
        self.ahead(self.start_step + step)
        batch = self.sampler.batch(self.start_step + step)
        return self._make(batch, self.positions(self.rank, part))

    def _make(self, batch: GlobalBatch, positions: range) -> MicroBatch:
        pairs, keys = [], []
        for position in positions:
            pair = Pair(self.reader, batch.sources[int(batch.source_ids[position])], int(batch.rows[position]))
            key = self.key_of(pair)
            image_seed, caption_seed, mask_seed = keys64(3, self.seed, batch.step, position, key)
            if batch.captions is not None:  # one is named: as a seed it draws itself
                caption_seed = int(batch.captions[position])
            pairs.append(DrawnPair(pair, image_seed, caption_seed, mask_seed))
            keys.append(key)
        images = self.images(pairs)
        input_ids, attention_mask = self.captions(pairs)
        return MicroBatch(images, input_ids, attention_mask, keys, batch.source, self.identify(pairs))


def size_key_of(step: str) -> str:
    """Name the setting that says how many pairs a micro-batch has; the plain step takes its local batch in one."""
    return "train.batch_size" if step == "plain" else MICRO_BATCH


class TrainBatches(Iterator[StepBatch], AbstractContextManager["TrainBatches"]):
    """Gives steps in order; close it, or use it in a `with` block, to end the workers.

    A step is given when its first micro-batch is there. The others are waited for when they are looked at, at the
    latest when the next step is asked for; what `next` raises may come then.
    """

    def __init__(
        self,
        dataset: MicroBatchesOfSteps,
        workers: int,
        arrange: Callable[[Iterator[MicroBatch]], Iterator[MicroBatch]],
        size_key: str,
        prefetch_bytes: int = PREFETCH_BYTES,
    ) -> None:
        """`size_key` names the setting that says how many pairs a micro-batch has; messages of memory name it.

        A step is made ahead, but no more than `prefetch_bytes` and a micro-batch for each worker.
        """
        self._dataset = dataset
        self._arrange = arrange
        self._step = dataset.start_step
        self._arriving: Arriving[MicroBatch] | None = None  # of the step that was given last
        # The second pass over a step takes nothing: with less than a step in store the workers would idle meanwhile.
        lower = f"machine.loader_workers or {size_key}" if workers else size_key
        bound = ByteBound(prefetch_bytes, workers, attrgetter("nbytes"))
        self._loader = OrderedLoader(dataset, workers, dataset.per_step, pinned=uses_gpu(), lower=lower, bound=bound)

    def __len__(self) -> int:
        """Steps that are left."""
        return self._dataset.sampler.steps - self._step

    def __next__(self) -> StepBatch:
        if self._arriving is not None:
            self._arriving.complete()
            self._arriving = None  # whoever still wants them has them
        if self._step >= self._dataset.sampler.steps:
            self.close()
            raise StopIteration
        per_step = self._dataset.per_step
        arriving = Arriving(self._arrange(islice(self._loader, per_step)), per_step)
        step = StepBatch(self._step, arriving[0].source, arriving)
        self._arriving = arriving
        self._step += 1
        return step

    def close(self) -> None:
        """End the workers; the iteration ends with them, also in the middle of a step."""
        self._arriving = None
        self._step = self._dataset.sampler.steps
        self._loader.close()
        self._dataset.ahead.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def train_batches(
    *,
    manifest: Manifest,
    shards: ShardReader,
    sampler: Sampler,
    tokenize: CaptionTokenizer,
    images: ImageSide,
    augment: AugmentParams,
    micro_batch: int,
    seed: int,
    rank: int,
    world_size: int,
    start_step: int = 0,
    workers: int = 0,
    identify: Identify = no_identities,
    arrange: Callable[[Iterator[MicroBatch]], Iterator[MicroBatch]] = iter,
    stored_images: StoredFeatures | None = None,
    stored_captions: StoredFeatures | None = None,
    ahead: Ahead | None = None,
    size_key: str = MICRO_BATCH,
    prefetch_bytes: int = PREFETCH_BYTES,
) -> TrainBatches:
    """Give a rank's batches of the steps from `start_step` on; nothing before it is read.

    What is stored of a side takes the place of its pixels or tokens, which are then neither read nor made. `ahead` gets
    the shards of coming steps ready.
    Raises `ZeroVLError` where the batch does not divide, and later, in `next`, where a shard is
    damaged, with shard, offset and key.
    """
    check_divides(sampler.batch_size, world_size, micro_batch)
    reader = SplitReader(manifest, shards, "train")
    images = StoredPictures(stored_images) if stored_images else images
    captions = StoredCaptions(stored_captions) if stored_captions else Captions(tokenize, augment.mask_probability)
    key_of = StoredKeys(stored_images) if stored_images and stored_captions else sample_key
    if ahead is None or (stored_images and stored_captions):  # then no shard is read
        ahead = NothingAhead()
    dataset = MicroBatches(
        reader, sampler, images, captions, key_of, identify, micro_batch, seed, rank, world_size, start_step, ahead
    )
    return TrainBatches(dataset, workers, arrange, size_key, prefetch_bytes)


def check_divides(batch_size: int, world_size: int, micro_batch: int) -> None:
    """Raise `ZeroVLError` where a global batch is not whole micro-batches on each rank."""
    if batch_size % (world_size * micro_batch):
        raise ZeroVLError(
            f"train.batch_size {batch_size} is not a multiple of ranks x train.micro_batch = "
            f"{world_size} x {micro_batch}; change one of them"
        )
