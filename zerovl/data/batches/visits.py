"""What an epoch goes over, by `train.epoch_of`: each pair with a caption drawn, or each caption with its picture.

Legend: `B` global batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zerovl.data.batches.caption_rows import CaptionRows, OneEach, caption_rows, joined
from zerovl.data.batches.epochs import CaptionsInOrder, CaptionStream, EpochStream, InOrder, Stream
from zerovl.data.batches.permutation import Rows
from zerovl.data.batches.shuffle import Global, Shuffle
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError

Ids = npt.NDArray[np.uint16]

NOUNS = {"pictures": "pairs", "captions": "captions"}  # what is visited, by `train.epoch_of`


class Visits(Protocol):
    """Says what an epoch visits of each source, in which order, and which pairs with which captions that is."""

    @property
    def sizes(self) -> dict[str, int]:
        """Visits of an epoch by source."""
        ...

    @property
    def pairs(self) -> dict[str, int]:
        """Pairs by source, of which a batch holds none twice."""
        ...

    def stream(self, sources: Sequence[str], batch_size: int, *key: int | str) -> Stream:
        """Return epoch after epoch over some sources, one after the other, each epoch in an order of its own."""
        ...

    def in_order(self, sources: Sequence[str], batch_size: int) -> Stream:
        """Return epoch after epoch in the order of the shards."""
        ...

    def located(self, sources: Sequence[str], source_ids: Ids, visited: Rows) -> tuple[Rows, Rows | None]:
        """Return pairs (B,) and numbers of their captions (B,), None where they are drawn, of visits (B,)."""
        ...


class EachPair:
    """Visits each pair once an epoch; which of its captions comes with it is drawn."""

    def __init__(self, sizes: dict[str, int], shuffle: Shuffle | None = None) -> None:
        self.sizes = sizes
        self.pairs = sizes
        self._shuffle = shuffle or Global()

    def stream(self, sources: Sequence[str], batch_size: int, *key: int | str) -> Stream:
        """Return an `EpochStream`."""
        return EpochStream(self._total(sources), batch_size, *key, shuffle=self._shuffle.over(sources))

    def in_order(self, sources: Sequence[str], batch_size: int) -> Stream:
        """Return one pair after the other."""
        return InOrder(self._total(sources), batch_size)

    def located(self, _sources: Sequence[str], _source_ids: Ids, visited: Rows) -> tuple[Rows, None]:
        """Return the visits as they are."""
        return visited, None

    def _total(self, sources: Sequence[str]) -> int:
        return sum(self.sizes[name] for name in sources)


class EachCaption:
    """Visits each caption of each pair once an epoch, as the paper's code does."""

    def __init__(self, captions: Mapping[str, CaptionRows | OneEach], shuffle: Shuffle | None = None) -> None:
        self._captions = captions
        self._shuffle = shuffle or Global()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Captions by source."""
        return {name: len(rows) for name, rows in self._captions.items()}

    @cached_property
    def pairs(self) -> dict[str, int]:
        """Pairs by source."""
        return {name: rows.pairs for name, rows in self._captions.items()}

    def stream(self, sources: Sequence[str], batch_size: int, *key: int | str) -> Stream:
        """Return a `CaptionStream`."""
        captions = self._joined(sources)
        return CaptionStream(captions, batch_size, *key, shuffle=self._shuffle.over(sources, captions.first_of))

    def in_order(self, sources: Sequence[str], batch_size: int) -> Stream:
        """Return a caption of each pair after the other, then the next one of each."""
        return CaptionsInOrder(self._joined(sources), batch_size)

    def located(self, sources: Sequence[str], source_ids: Ids, visited: Rows) -> tuple[Rows, Rows]:
        """Return pair and caption of each visit."""
        rows, captions = np.empty_like(visited), np.empty_like(visited)
        for number in np.unique(source_ids):
            its = source_ids == number
            name = sources[int(number)]
            rows[its], captions[its] = self._captions[name].located(visited[its], name)
        return rows, captions

    def _joined(self, sources: Sequence[str]) -> CaptionRows | OneEach:
        return joined([self._captions[name] for name in sources])


def visits_of(epoch_of: str, manifest: Manifest, shuffle: Shuffle | None = None) -> Visits:
    """Return what an epoch of the training pairs goes over; raises `ZeroVLError` for an unknown `epoch_of`."""
    if epoch_of == "pictures":
        return EachPair(manifest.training_sizes(), shuffle)
    if epoch_of == "captions":
        return EachCaption({name: caption_rows(manifest, name) for name in manifest.sources("train")}, shuffle)
    raise ZeroVLError(f"train.epoch_of {epoch_of!r}: unknown; set it to pictures or captions")


def epoch_sizes(epoch_of: str, manifest: Manifest) -> dict[str, int]:
    """Return the visits of an epoch by source, sorted by name, without a look at any table."""
    if epoch_of == "pictures":
        return manifest.training_sizes()
    return {name: manifest.splits[name, "train"].captions for name in manifest.sources("train")}
