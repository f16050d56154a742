"""Where the pictures of a training are decoded, by `machine.decode_on`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from zerovl.data.batches.arrangement import Arrange
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.encoded_pictures import EncodedPictures
from zerovl.data.batches.gpu_decoding import BatchedDecoding, NvJpeg, nvjpeg_problem
from zerovl.data.batches.loader import MicroBatch
from zerovl.data.batches.sides import ImageSide, Pictures, PicturesAsStored, Transform
from zerovl.distributed.ranks import Ranks
from zerovl.log import logger
from zerovl.params import Params
from zerovl.training.features import training_transform


class PictureRoute(Protocol):
    """Says what the loader makes of pictures, and what becomes of that afterwards."""

    @property
    def images(self) -> ImageSide:
        """What the loader's processes do."""
        ...

    def arranged(self, arrange: Arrange) -> Arrange:
        """Return how the micro-batches of a step are arranged, and what their pictures are decoded by."""
        ...

    def tell(self) -> None:
        """Say what was decoded where, if anybody must know."""
        ...


@dataclass(frozen=True)
class ByLoader:
    """The loader's processes decode."""

    images: ImageSide

    def arranged(self, arrange: Arrange) -> Arrange:
        """Return the same: there is nothing left to decode."""
        return arrange

    def tell(self) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class OnDevice:
    """JPEGs are decoded on their way to the device of a rank."""

    transform: TrainTransform
    decoding: BatchedDecoding
    rank: int

    @property
    def images(self) -> ImageSide:
        """Leave JPEGs as they are stored."""
        return PicturesAsStored(self.transform)

    def arranged(self, arrange: Arrange) -> Arrange:
        """Return the same, with pictures that know what decodes them."""
        return lambda arriving: arrange(self._to_be_decoded(arriving))

    def _to_be_decoded(self, arriving: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
        for part in arriving:
            if isinstance(part.images, EncodedPictures):
                part = replace(part, images=replace(part.images, decoder=self.decoding))
            yield part

    def tell(self) -> None:
        """Say how many were decoded where."""
        logger().info(f"rank {self.rank}: {self.decoding.told()}")


def picture_route(params: Params, ranks: Ranks, stored: bool) -> PictureRoute:
    """Return how pictures go; says why a GPU that was asked for is not used. `stored`: none are decoded.

    A collective where a GPU is asked for.
    """
    transform = training_transform(params)
    if params.machine.decode_on == "cpu" or stored:
        return ByLoader(Pictures(transform))
    problem = gpu_problem(transform, ranks.device)
    _tell(problem, ranks)
    if problem is None and isinstance(transform, TrainTransform):
        return OnDevice(transform, BatchedDecoding(NvJpeg(ranks.device)), ranks.rank)
    return ByLoader(Pictures(transform))


def gpu_problem(transform: Transform, device: torch.device) -> str | None:
    """Return why a device does not decode the pictures of a transform, in a line; None where it does."""
    if not isinstance(transform, TrainTransform):
        return "pictures of a frozen tower are shown whole"
    return nvjpeg_problem(device)


def _tell(problem: str | None, ranks: Ranks) -> None:
    """Say why a GPU is not used: rank 0, and each rank with another reason. A collective."""
    mine = torch.tensor([[zlib.crc32((problem or "").encode())]], device=ranks.device)
    everyone = ranks.collectives.gather(mine).cpu()  # (W, 1)
    if problem is None or (not ranks.is_first and bool(everyone[0] == everyone[ranks.rank])):
        return
    who = "" if ranks.is_first else f"rank {ranks.rank}: "
    logger().info(f"{who}machine.decode_on gpu: {problem}, so the loader processes decode all pictures on the CPU")
