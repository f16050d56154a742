"""All usable samples of a manifest by one number, so that equal and alike ones can be compared.

Valid splits come first, then training splits, each by the names of their sources; within a split the order is that of
its table, which is that of its index. So of two samples the one with the smaller number is the one that stays.

Shapes: N samples, C captions, n samples of a batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zerovl.data.manifest import Manifest
from zerovl.parquet_files import open_parquet

Numbers = npt.NDArray[np.int64]

_BATCH = 16_384  # rows


@dataclass(frozen=True)
class TableRows:
    """The samples of one table."""

    source: str
    split: str
    samples: range  # numbers of its samples
    captions: range  # numbers of its captions


@dataclass(frozen=True)
class UsableRows:
    """The samples of all tables."""

    manifest: Manifest
    tables: tuple[TableRows, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Number the samples of a manifest."""
        tables: list[TableRows] = []
        sample = caption = 0
        for source, split in sorted(manifest.splits, key=lambda name: (name[1] == "train", name[0])):
            info = manifest.splits[source, split]
            ends = sample + info.pairs, caption + info.captions
            tables.append(TableRows(source, split, range(sample, ends[0]), range(caption, ends[1])))
            sample, caption = ends
        return cls(manifest, tuple(tables))

    @property
    def samples(self) -> int:
        """Number of samples, N."""
        return self.tables[-1].samples.stop if self.tables else 0

    @property
    def captions(self) -> int:
        """Number of captions, C."""
        return self.tables[-1].captions.stop if self.tables else 0

    def source_of(self, number: int) -> str:
        """Return the source of a sample."""
        return self.tables[bisect_right(self.tables, number, key=lambda table: table.samples.start) - 1].source

    def batches(self, columns: Sequence[str], split: str | None = None) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Give (n,) numbers, ascending, and these columns of usable samples, of one split or of all."""
        for table in self.tables:
            if split in (None, table.split):
                yield from self.table_batches(table, columns)

    def table_batches(self, table: TableRows, columns: Sequence[str]) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """As `batches`, of one table."""
        first = table.samples.start
        with open_parquet(self.manifest.table_path(table.source, table.split)) as file:
            for batch in file.iter_batches(_BATCH, columns=[*columns, "error"]):
                usable = batch.filter(pc.is_null(batch.column("error")))
                yield np.arange(first, first + len(usable), dtype=np.int64), usable
                first += len(usable)
