"""Samples of a split by source and row, with their pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from zerovl.data.manifest import Manifest
from zerovl.data.shards import Sample, ShardReader, locate, read_row
from zerovl.errors import ZeroVLError
from zerovl.images import BrokenImageError, decode_rgb
from zerovl.picture_reader import ANY_PIXELS as ANY_PIXELS  # of others too

Found = TypeVar("Found")


class SplitReader:
    """Reads samples of one split by source and row; opens each index once a process."""

    def __init__(self, manifest: Manifest, shards: ShardReader, split: str) -> None:
        self._manifest = manifest
        self._shards = shards
        self._split = split
        self._indices: dict[str, npt.NDArray[np.void]] = {}

    def read(self, source: str, row: int) -> tuple[Sample, Image.Image]:
        """Return a sample and its RGB picture; raises `ZeroVLError` where either is damaged."""
        sample = self.sample(source, row)
        return sample, self.picture(source, row, sample)

    def sample(self, source: str, row: int) -> Sample:
        """Return a sample, its picture as stored; raises `ZeroVLError` where it is damaged."""
        return self._shards.read(*self._place(source, row))

    def picture(self, source: str, row: int, sample: Sample) -> Image.Image:
        """Return the RGB picture of a sample; raises `ZeroVLError` where it does not decode."""
        return self.decoded(source, row, sample, partial(decode_rgb, max_pixels=ANY_PIXELS))

    def decoded(self, source: str, row: int, sample: Sample, decode: Callable[[bytes], Found]) -> Found:
        """Return what `decode` makes of a sample's picture; its `BrokenImageError` becomes a `ZeroVLError`."""
        try:
            return decode(sample.image)
        except BrokenImageError as error:
            raise no_longer_decodes(self.where(source, row, sample), error) from None

    def where(self, source: str, row: int, sample: Sample) -> str:
        """Say where the picture of a sample lies, for messages."""
        path, offset, _ = self._place(source, row)
        return f"{self._shards.root}/{path}: the picture of sample {sample.key} at byte {offset}"

    def _place(self, source: str, row: int) -> tuple[str, int, int]:
        """Shard, offset and size."""
        if source not in self._indices:
            self._indices[source] = self._manifest.index(source, self._split)
        return locate(self._manifest, self._indices[source][row], source, self._split)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indices": {}}  # pickling a memory map would copy the whole file


def no_longer_decodes(where: str, error: BrokenImageError) -> ZeroVLError:
    """Return the error of a picture that was whole when it was packed; `where` as `SplitReader.where` says it."""
    return ZeroVLError(
        f"{where} no longer decodes ({error}); get the shard back with `dvc pull`, or make it again with "
        "`dvc repro -f prepare`"
    )


def read_image(manifest: Manifest, shards: ShardReader, source: str, split: str, row: int) -> Sample:
    """Return one sample with its stored bytes, for the gallery."""
    return read_row(manifest, shards, source, split, row)
