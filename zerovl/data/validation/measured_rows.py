"""Usable rows of the manifest with what the rules judge: words, sides, what is missing.

Shapes: `n` usable rows of a batch, `c` their captions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zerovl.data.manifest import SCHEMA
from zerovl.data.validation.statistics import Example, Integers, example

REQUIRED = [name for name in SCHEMA.names if name not in ("recoded", "error")]
_WORD = r"[^\s\p{Z}\x0b\x1c-\x1f\x{85}]+"  # what str.split leaves, in the syntax of RE2


@dataclass(frozen=True)
class MeasuredRows:
    """The usable rows of one batch, measured."""

    batch: pa.RecordBatch  # (n,)
    places: Integers  # (n,)
    text: pa.Array  # (c,) captions without nulls
    parent: Integers  # (c,) row of each caption
    words: Integers  # (c,)
    words_min: npt.NDArray[np.float64]  # (n,) NaN where a row has no caption
    words_max: npt.NDArray[np.float64]  # (n,)
    side: npt.NDArray[np.float64]  # (n,) shorter side in pixels, NaN where unknown
    aspect: npt.NDArray[np.float64]  # (n,) longer over shorter side
    nulls: Integers  # (n,) values that are missing

    def example(self, row: int, detail: str) -> Example:
        """Return a row as an example of what `detail` says."""
        return example(self.batch.column("key")[row].as_py(), self.batch.column("origin")[row].as_py(), detail)


def measure(batch: pa.RecordBatch, places: Integers) -> MeasuredRows:
    """Measure a batch of usable rows; `places` (n,) says which rows they are."""
    n = len(batch)
    lists = batch.column("captions")
    text = pc.list_flatten(lists)
    parent = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    nulls = np.zeros(n, np.int64)
    if text.null_count:
        present = text.is_valid()
        mask = present.to_numpy(zero_copy_only=False)
        nulls += np.bincount(parent[~mask], minlength=n)
        text, parent = text.filter(present), parent[mask]
    words = pc.count_substring_regex(text, pattern=_WORD).to_numpy(zero_copy_only=False).astype(np.int64)
    words_min, words_max = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(words_min, parent, words)
    np.maximum.at(words_max, parent, words)
    words_min[np.isinf(words_min)] = np.nan
    words_max[np.isinf(words_max)] = np.nan
    nulls += np.isnan(words_min)  # no caption at all
    for name in REQUIRED:
        column = batch.column(name)
        if column.null_count and name != "captions":
            nulls += column.is_null().to_numpy(zero_copy_only=False)
    width = batch.column("width").cast(pa.float64()).to_numpy(zero_copy_only=False)
    height = batch.column("height").cast(pa.float64()).to_numpy(zero_copy_only=False)
    side = np.minimum(width, height)
    aspect = np.maximum(width, height) / np.maximum(side, 1)
    return MeasuredRows(batch, places, text, parent, words, words_min, words_max, side, aspect, nulls)


def sample_table(rows: MeasuredRows, chosen: Integers, split: tuple[str, str]) -> pa.Table:
    """Return the chosen rows with what Great Expectations looks at; one caption stands for all of a row."""
    batch = rows.batch.take(pa.array(chosen))
    captions = [texts[0] if texts else None for texts in batch.column("captions").to_pylist()]
    columns = {name: batch.column(name) for name in ("key", "shard", "image_id", "width", "height", "bytes", "sha256")}
    measures = {
        "words_min": rows.words_min,
        "words_max": rows.words_max,
        "side": rows.side,
        "aspect": rows.aspect,
        "nulls": rows.nulls.astype(np.float64),
    }
    return pa.table(
        {
            "source": pa.array([split[0]] * len(batch), pa.string()),
            "split": pa.array([split[1]] * len(batch), pa.string()),
            **columns,
            "caption": pa.array(captions, pa.string()),
            **{name: pa.array(values[chosen], pa.float64(), from_pandas=True) for name, values in measures.items()},
        }
    )
