"""The manifest: what every shard holds, and where.

`data/manifest/` has three kinds of files:

- `<source>-<split>.parquet`: one row a sample (columns: `SCHEMA`), quarantined inputs included
  (`error` says why, `shard` is null);
- `<source>-<split>.index.npy`: one fixed-size record a usable sample (`INDEX_DTYPE`), memory-mapped
  by the loader, so that a rank's memory does not grow with the number of pairs;
- `manifest.json`: counts and digests of all shards, written last: without it there is no manifest.

A sample is one image with its captions; it counts as one pair, since each visit draws one caption.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_json, write_json
from zerovl.workspace import MANIFEST_FILE

VERSION = 1

SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # <source>-<image_id>, unique over all sources
        ("source", pa.string()),
        ("split", pa.string()),  # train | valid
        ("shard", pa.string()),  # relative to data/shards, null where quarantined
        ("offset", pa.int64()),  # of the sample's first tar header, bytes
        ("size", pa.int64()),  # of all its members with headers and padding, bytes
        ("image_id", pa.int64()),
        ("captions", pa.list_(pa.string())),
        ("caption_ids", pa.list_(pa.int64())),
        ("width", pa.int32()),  # of the stored picture
        ("height", pa.int32()),
        ("bytes", pa.int64()),  # of the stored picture
        ("sha256", pa.string()),  # of the original picture's bytes
        ("phash", pa.uint64()),  # 64-bit difference hash
        ("recoded", pa.string()),  # why the stored bytes are not the original ones; null where they are
        ("error", pa.string()),  # why the input is quarantined; null where it is usable
        ("origin", pa.string()),  # file, row or member that the input came from
    ]
)

INDEX_DTYPE = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("size", "<u4")])


@dataclass(frozen=True)
class ShardInfo:
    """One shard: its samples, and the bytes that it must have."""

    path: str  # relative to data/shards
    samples: int
    bytes: int
    sha256: str
    tar: str | None = None  # sha256 of the one tar that has the pictures of this shard (`placed_tars`)


@dataclass(frozen=True)
class SplitInfo:
    """One split of one source: what was usable, what was not, and where it lies."""

    pairs: int  # usable samples
    captions: int
    broken: int  # quarantined inputs
    shards: tuple[ShardInfo, ...]


@dataclass(frozen=True)
class Manifest:
    """What every shard holds: counts and digests in memory, rows and index in the files of `folder`."""

    folder: Path
    splits: dict[tuple[str, str], SplitInfo]  # (source, split) -> what is in it

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `manifest.json`; raises `ZeroVLError` where it is missing or of another version."""
        values = read_json(folder / MANIFEST_FILE)
        if values.get("version") != VERSION:
            raise ZeroVLError(
                f"{folder / MANIFEST_FILE}: version {values.get('version')!r}, this code reads {VERSION}; "
                "run `dvc repro -f prepare`"
            )
        splits = {
            (source, split): SplitInfo(
                info["pairs"], info["captions"], info["broken"], tuple(ShardInfo(**shard) for shard in info["shards"])
            )
            for source, by_split in values["sources"].items()
            for split, info in by_split.items()
        }
        return cls(folder, splits)

    def save(self) -> None:
        """Write `manifest.json`; call it after all other files of the manifest are in place."""
        sources: dict[str, dict[str, Any]] = {}
        for (source, split), info in sorted(self.splits.items()):
            shards = [_without_none(asdict(shard)) for shard in info.shards]
            sources.setdefault(source, {})[split] = asdict(replace(info, shards=())) | {"shards": shards}
        write_json(self.folder / MANIFEST_FILE, {"version": VERSION, "digest": self.digest, "sources": sources})

    @property
    def digest(self) -> str:
        """Digest that changes when and only when the bytes of a shard, their order or their sources change."""
        return sha256_json(
            [[*key, [shard.sha256 for shard in info.shards]] for key, info in sorted(self.splits.items())]
        )

    def sources(self, split: str) -> list[str]:
        """Return the names of the sources that have usable samples in `split`, sorted."""
        return sorted(name for (name, its_split), info in self.splits.items() if its_split == split and info.pairs)

    def training_sizes(self) -> dict[str, int]:
        """Return the training pairs of each source that has any, sorted by name."""
        return {name: self.pairs(name, "train") for name in self.sources("train")}

    def pairs(self, source: str, split: str) -> int:
        """Return the usable samples of a source's split."""
        return self.splits[source, split].pairs

    def index(self, source: str, split: str) -> npt.NDArray[np.void]:
        """Return memory-mapped records of `INDEX_DTYPE`, (pairs,); `shard` counts in `splits[...].shards`."""
        records: npt.NDArray[np.void] = np.load(self.index_path(source, split), mmap_mode="r")
        return records

    def index_path(self, source: str, split: str) -> Path:
        """Return where the index of a source's split lies."""
        return self.folder / f"{source}-{split}.index.npy"

    def table_path(self, source: str, split: str) -> Path:
        """Return where the table of a source's split lies."""
        return self.folder / f"{source}-{split}.parquet"


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
