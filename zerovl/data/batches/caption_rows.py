"""All captions of pairs in one row: those of a pair follow one another, in the order of the pairs.

Shapes: n pairs, k rows that are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from zerovl.data.batches.randomness import keys64, splitmix64
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.parquet_files import open_parquet

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CaptionRows:
    """Caption q of the row belongs to pair i where first[i] <= q < first[i + 1]."""

    first: Rows  # (n + 1,)

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def pairs(self) -> int:
        """Number of pairs, n."""
        return self.first.size - 1

    @property
    def most(self) -> int:
        """Captions of the pair that has the most."""
        return int(np.diff(self.first).max())

    def first_of(self, pairs: Rows) -> Rows:
        """Return the first captions (k,) of pairs (k,) in range(n + 1)."""
        return self.first[pairs]

    def pairs_of(self, rows: Rows) -> Rows:
        """Return (k,) pairs of (k,) captions."""
        return np.searchsorted(self.first, rows, side="right") - 1

    def located(self, rows: Rows, *key: int | str) -> tuple[Rows, Rows]:
        """Return pair and number among its captions, (k,) each, of (k,) captions.

        Where a pair's numbers begin is drawn from `key`: of what a lap visits (`CaptionStream`), some are then first
        captions, some second ones and so on, although their captions often stand in an order that means something.
        """
        pairs = self.pairs_of(rows)
        first = self.first[pairs]
        counts = self.first[pairs + 1] - first
        drawn = splitmix64(pairs.astype(np.uint64) + np.uint64(keys64(1, *key)[0])) >> np.uint64(1)
        return pairs, (rows - first + drawn.astype(np.int64)) % counts


@dataclass(frozen=True)
class OneEach:
    """The same of n pairs with one caption each, as pairs from the web are: nothing is stored of any pair."""

    pairs: int

    def __len__(self) -> int:
        return self.pairs

    @property
    def most(self) -> int:
        """Captions of the pair that has the most."""
        return 1

    def first_of(self, pairs: Rows) -> Rows:
        """Return the pairs as they are."""
        return pairs

    def pairs_of(self, rows: Rows) -> Rows:
        """Return the rows as they are."""
        return rows

    def located(self, rows: Rows, *_key: int | str) -> tuple[Rows, Rows]:
        """Return the pairs and zeros, (k,) each."""
        return rows, np.zeros_like(rows)


def joined(parts: Sequence[CaptionRows | OneEach]) -> CaptionRows | OneEach:
    """Return the captions of several sources, one source after the other."""
    if all(isinstance(part, OneEach) for part in parts):
        return OneEach(sum(part.pairs for part in parts))
    counts = [np.diff(part.first_of(np.arange(part.pairs + 1))) for part in parts]
    return CaptionRows(_first(np.concatenate(counts)))


def caption_rows(manifest: Manifest, source: str) -> CaptionRows | OneEach:
    """Return the captions of a source's training pairs in the order of its index.

    The table is read only where a pair has more than one; raises `ZeroVLError` where it is not the manifest's.
    """
    info = manifest.splits[source, "train"]
    if info.captions == info.pairs:
        return OneEach(info.pairs)
    path, counts = manifest.table_path(source, "train"), [np.empty(0, dtype=np.int64)]
    with open_parquet(path) as table:
        for part in table.iter_batches(columns=["error", "captions"]):
            usable = part.filter(pc.is_null(part.column("error")))
            counts.append(pc.list_value_length(usable.column("captions")).to_numpy(zero_copy_only=False))
    rows = CaptionRows(_first(np.concatenate(counts)))
    if (rows.pairs, len(rows)) != (info.pairs, info.captions):
        raise ZeroVLError(
            f"{path}: has {rows.pairs} pairs with {len(rows)} captions, the manifest {info.pairs} with "
            f"{info.captions}; run `dvc repro -f prepare`"
        )
    return rows


def _first(counts: npt.NDArray[np.integer]) -> Rows:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
