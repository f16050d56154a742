"""Find pictures and captions of queries: in the validation shards that are here, else in samples of releases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq

from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader, read_row
from zerovl.errors import ZeroVLError
from zerovl.evaluation.comparable import evaluation_digest
from zerovl.release.sample_pairs import StoredPair, read_stored
from zerovl.workspace import Workspace


class Pairs(Protocol):
    """Gives the stored pairs of queries."""

    @property
    def where(self) -> str:
        """Return where they come from, for the page."""
        ...

    def has(self, source: str, image_id: int) -> bool:
        """Tell whether the pair of a picture is there."""
        ...

    def pair(self, source: str, image_id: int) -> StoredPair:
        """Return the pair of a picture that is there; raises `ZeroVLError` where it is damaged."""
        ...


@dataclass(frozen=True)
class SamplePairs:
    """The fixed samples that releases carry: a few pairs each."""

    pairs: Mapping[tuple[str, int], StoredPair]

    @property
    def where(self) -> str:
        """Return where they come from, for the page."""
        return (
            f"of the {len(self.pairs)} validation pairs that the releases carry as their sample; in a checkout with "
            "the validation data itself all queries are looked through"
        )

    def has(self, source: str, image_id: int) -> bool:
        """Tell whether a sample has the picture."""
        return (source, image_id) in self.pairs

    def pair(self, source: str, image_id: int) -> StoredPair:
        """Return a pair of a sample."""
        return self.pairs[source, image_id]


class ShardPairs:
    """The validation shards of a checkout; an image_id that several pairs of a source share is left out."""

    where = "of all validation queries"

    def __init__(self, manifest: Manifest, shards: ShardReader) -> None:
        self._manifest, self._shards = manifest, shards
        self._rows: dict[str, dict[int, int]] = {}

    def has(self, source: str, image_id: int) -> bool:
        """Tell whether one pair of the source, and no other, has the id."""
        return image_id in self._of(source)

    def pair(self, source: str, image_id: int) -> StoredPair:
        """Read the pair from its shard; raises `ZeroVLError` where that has another one there."""
        found = read_row(self._manifest, self._shards, source, "valid", self._of(source)[image_id])
        if found.image_id != image_id:
            raise ZeroVLError(
                f"{source}: {found.key} where picture {image_id} should be; the manifest and the shards do not belong "
                "together, run `dvc repro -f prepare`"
            )
        return StoredPair(source, image_id, found.image, tuple(found.captions))

    def _of(self, source: str) -> dict[int, int]:
        """Rows by image_id, of those that are there once."""
        if source not in self._rows:
            table = pq.read_table(self._manifest.table_path(source, "valid"), columns=["image_id", "error"])
            ids = table["image_id"].filter(table["error"].is_null()).to_numpy()
            values, first, counts = np.unique(ids, return_index=True, return_counts=True)
            self._rows[source] = {
                int(value): int(row) for value, row, count in zip(values, first, counts, strict=True) if count == 1
            }
        return self._rows[source]


def open_pairs(digest: str | None, samples: Iterable[Path], here: Workspace) -> Pairs:
    """Return the pairs of an evaluation by its digest: those of the checkout where it has these, else the samples'."""
    if here.manifest_file.is_file() and here.shards.is_dir():
        manifest = Manifest.load(here.manifest)
        if digest is not None and evaluation_digest(manifest) == digest:
            return ShardPairs(manifest, ShardReader(here.shards))
    stored = [pair for path in samples for pair in read_stored(path)]
    return SamplePairs({(pair.source, pair.image_id): pair for pair in stored})
