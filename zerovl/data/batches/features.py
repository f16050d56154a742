"""What a frozen tower makes of a split, stored once and memory-mapped afterwards.

A folder of three files a source: `SOURCE.npy` has the features, float32, of its pictures (pairs, w) or of all its
captions (captions, w), both in the order of the index; `SOURCE.first.npy` (pairs + 1,) which of the rows are a
pair's; `SOURCE.keys.npy` (pairs,) the keys of the samples. `features.json` comes last: without it there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zerovl.data.manifest import Manifest
from zerovl.parquet_files import open_parquet

COMPLETE = "features.json"
_SUFFIXES = {"rows": ".npy", "first": ".first.npy", "keys": ".keys.npy"}


def features_path(folder: Path, source: str) -> Path:
    """Return where the features of a source lie, an .npy of float32."""
    return folder / f"{source}{_SUFFIXES['rows']}"


class StoredFeatures:
    """Reads features by source and row; opens each file once a process, and can be pickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[tuple[str, str], npt.NDArray[Any]] = {}

    def key(self, source: str, row: int) -> str:
        """Return the key of a sample."""
        return bytes(self._array(source, "keys")[row]).decode()

    def rows_of(self, source: str, row: int) -> range:
        """Return which of the source's features are of a pair: one of its picture, or one of each caption."""
        first, end = self._array(source, "first")[row : row + 2]
        return range(int(first), int(end))

    def feature(self, source: str, number: int) -> npt.NDArray[np.float32]:
        """Return one of the source's features, (w,)."""
        found: npt.NDArray[np.float32] = self._array(source, "rows")[number]
        return found

    def _array(self, source: str, what: str) -> npt.NDArray[Any]:
        if (source, what) not in self._open:
            path = self.folder / f"{source}{_SUFFIXES[what]}"
            self._open[source, what] = np.load(path, mmap_mode="r")
        return self._open[source, what]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_open": {}}  # pickling a memory map would copy the whole file


def captions_of(manifest: Manifest, source: str) -> Iterator[list[str]]:
    """Go through the captions of a source's training pairs, in the order of its index."""
    for _, captions in _usable(manifest, source, "captions"):
        yield captions


def lay_out(folder: Path, manifest: Manifest, source: str, width: int, of_captions: bool) -> None:
    """Write keys and places of a source's training pairs, and make room for its features, w = `width`."""
    keys, counts = [], []
    for key, captions in _usable(manifest, source, "captions"):
        keys.append(key.encode())
        counts.append(len(captions) if of_captions else 1)
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    np.save(folder / f"{source}{_SUFFIXES['first']}", first)
    np.save(folder / f"{source}{_SUFFIXES['keys']}", np.array(keys))
    rows = np.lib.format.open_memmap(
        features_path(folder, source), mode="w+", dtype=np.float32, shape=(int(first[-1]), width)
    )
    rows.flush()


def write_rows(folder: Path, source: str, start: int, rows: npt.NDArray[np.float32]) -> None:
    """Write features (n, w) to their place; ranks write to one file, each its own rows. Raises OSError."""
    path = features_path(folder, source)
    place = np.load(path, mmap_mode="r").offset + start * rows[0].nbytes
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())


def _usable(manifest: Manifest, source: str, column: str) -> Iterator[tuple[str, Any]]:
    """Keys and one column of the table's rows that the index has too."""
    with open_parquet(manifest.table_path(source, "train")) as table:
        for part in table.iter_batches(columns=["key", "error", column]):
            rows: Sequence[dict[str, Any]] = part.to_pylist()
            yield from ((row["key"], row[column]) for row in rows if row["error"] is None)
