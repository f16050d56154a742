"""A valid split drawn from the training pictures of a source that has none.

Pictures that look alike go together: those within some bits of each other's perceptual hash, directly or through
others, are one group. A group is drawn by a keyed hash of the smallest perceptual hash in it, so that it depends on the
pictures alone: neither their order, nor their number, nor other sources count, and more data moves only what is alike
to it.

In memory there are the perceptual hashes of one source, some 100 bytes a picture, and the samples of one shard.

Shapes: n usable pictures of a source, u distinct hashes, p near pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zerovl.data.filtering.near_pairs import Places, Words, near_pairs
from zerovl.data.filtering.rewriting import Row, by_shard, copied, stored_sample
from zerovl.data.manifest import Manifest, ShardInfo, SplitInfo
from zerovl.data.manifest_writing import SplitWriter
from zerovl.data.shard_writing import ShardWriter
from zerovl.data.shards import Sample, ShardReader
from zerovl.errors import ZeroVLError
from zerovl.params import DrawValidParams
from zerovl.parquet_files import open_parquet

Mask = npt.NDArray[np.bool_]


def draw_valid(
    manifest: Manifest, source: str, settings: DrawValidParams, shards: Path, shard_samples: int
) -> Manifest:
    """Move drawn pictures of `source` from train to valid, in shards, tables and indices.

    Shards from which none is drawn stay as they are, but for their number.

    Raises `ZeroVLError` where none of the pictures, or all of them, would be drawn.
    """
    with open_parquet(manifest.table_path(source, "train")) as table:
        column = table.read(["phash", "error"])
    usable = column.filter(column.column("error").is_null()).column("phash")
    drawn = drawn_pictures(usable.to_numpy(), settings)
    if drawn.all() or not drawn.any():
        raise ZeroVLError(
            f"prepare.draw_valid.fraction is {settings.fraction:g}: of the {len(drawn)} pictures of {source} "
            f"{'all' if drawn.all() else 'none'} would be drawn for valid; change the fraction or the "
            "seed, or give the source a valid split"
        )
    train, valid = _Part(source, "train", shards), _Part(source, "valid", shards)
    reader, number = ShardReader(shards), 0
    before = {shard.path: shard for shard in manifest.splits[source, "train"].shards}
    with (
        SplitWriter(manifest.folder, source, "train") as train_writer,
        SplitWriter(manifest.folder, source, "valid") as valid_writer,
    ):
        for path, rows in by_shard(manifest.table_path(source, "train")):
            broken = [row for row in rows if row["error"] is not None]
            good = [row for row in rows if row["error"] is None]
            moved = drawn[number : number + len(good)].tolist()
            number += len(good)
            train.broken += len(broken)
            if path is not None and not any(moved):
                train.keep(train_writer.add, before[path], good, broken)
                continue
            samples = [stored_sample(row, reader) for row in good]
            reader.close()
            if path is not None:
                (shards / path).unlink()
            for row, sample, goes in zip(good, samples, moved, strict=True):
                (valid if goes else train).pending.append((row, sample))
            train.flush(train_writer.add, broken, before[path].tar if path is not None else None)
            if len(valid.pending) >= shard_samples:
                valid.flush(valid_writer.add, [])
        valid.flush(valid_writer.add, [])
    splits = {**manifest.splits, (source, "train"): train.info(), (source, "valid"): valid.info()}
    return Manifest(manifest.folder, splits)


def drawn_pictures(hashes: Words, settings: DrawValidParams) -> Mask:
    """Return (n,) which pictures, by their perceptual hashes, are drawn."""
    distinct, inverse = np.unique(hashes, return_inverse=True)  # (u,), (n,)
    groups = smallest_of_group(len(distinct), near_pairs(distinct, settings.near_distance))
    leaders, place = np.unique(groups, return_inverse=True)
    chosen = np.array([_draw(int(distinct[leader]), settings.seed) < settings.fraction for leader in leaders], bool)
    drawn: Mask = chosen[place][inverse]
    return drawn


def smallest_of_group(count: int, pairs: Places) -> Places:
    """Return (u,) for each of `count` places the smallest one that `pairs` (p, 2) connect it with."""
    smallest = np.arange(count)
    while True:
        before = smallest.copy()
        for one, other in ((0, 1), (1, 0)):
            np.minimum.at(smallest, pairs[:, one], smallest[pairs[:, other]])
        smallest = smallest[smallest]
        if np.array_equal(before, smallest):
            return smallest


def _draw(value: int, seed: int) -> float:
    """A number in [0, 1) that follows from the hash of a picture and the seed."""
    digest = hashlib.blake2b(value.to_bytes(8), digest_size=8, key=seed.to_bytes(8)).digest()
    return int.from_bytes(digest) / 2**64


@dataclass
class _Part:
    """One of the two splits in the making."""

    source: str
    split: str
    shards: Path
    pending: list[tuple[Row, Sample]] = field(default_factory=list)
    written: list[ShardInfo] = field(default_factory=list)
    captions: int = 0
    broken: int = 0

    def flush(self, add: Callable[[list[Row], int], None], broken: list[Row], tar: str | None = None) -> None:
        """Write what is pending as one shard, and its rows with the broken ones; `tar` as in `ShardInfo`."""
        number, path = self._next()
        rows: list[Row] = []
        with ExitStack() as stack:
            shard = ShardWriter(self.shards / path, stack)
            for row, sample in self.pending:
                rows.append(row | {"split": self.split, "shard": path} | copied(row, sample, shard))
            size, digest = shard.finish()
        if rows:
            self.written.append(ShardInfo(path, len(rows), size, digest, tar))
        self.captions += sum(len(row["captions"]) for row in rows)
        self.pending = []
        add([*rows, *broken], number)

    def keep(self, add: Callable[[list[Row], int], None], shard: ShardInfo, good: list[Row], broken: list[Row]) -> None:
        """Take a whole shard over under the next number, and its rows."""
        number, path = self._next()
        (self.shards / shard.path).rename(self.shards / path)
        self.written.append(replace(shard, path=path))
        self.captions += sum(len(row["captions"]) for row in good)
        add([*(row | {"shard": path} for row in good), *broken], number)

    def _next(self) -> tuple[int, str]:
        """(number of the next shard, its path)."""
        return len(self.written), f"{self.source}/{self.split}/{len(self.written):06d}.tar"

    def info(self) -> SplitInfo:
        """Return what is in the split."""
        pairs = sum(shard.samples for shard in self.written)
        return SplitInfo(pairs, self.captions, self.broken, tuple(self.written))
