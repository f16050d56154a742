"""Shards, table and index of a split without what was left out after it had been packed.

Only shards that lose something are written again, one sample in memory at a time; shards keep consecutive numbers.
Samples that stay keep their order and their bytes, and those that lose captions lose them in the shard too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zerovl.data.filtering.fates import Fates
from zerovl.data.filtering.left_out import LeftOut, small_picture
from zerovl.data.filtering.left_out_tables import LeftOutWriter, entries
from zerovl.data.filtering.usable_rows import TableRows
from zerovl.data.manifest import Manifest, ShardInfo, SplitInfo
from zerovl.data.manifest_writing import SplitWriter
from zerovl.data.shard_writing import ShardWriter, sample_members
from zerovl.data.shards import Sample, ShardReader
from zerovl.parquet_files import open_parquet

Row = dict[str, Any]  # of the manifest's table

_BATCH = 1024  # rows


@dataclass
class SplitRewriter:
    """Rewrites one split; counts go along from shard to shard."""

    manifest: Manifest
    shards: Path
    table: TableRows
    fates: Fates
    left_out: LeftOutWriter
    _written: list[ShardInfo] = field(default_factory=list)
    _pairs: int = 0
    _captions: int = 0
    _broken: int = 0

    def run(self) -> SplitInfo:
        """Write the split again; returns what is in it now."""
        source, split = self.table.source, self.table.split
        before = {shard.path: shard for shard in self.manifest.splits[source, split].shards}
        sample, caption = self.table.samples.start, self.table.captions.start
        self.left_out.add(entries(self.manifest.folder, source, split))
        with SplitWriter(self.manifest.folder, source, split) as writer:
            for path, rows in by_shard(self.manifest.table_path(source, split)):
                kept: list[Row] = []
                removed: list[tuple[Row, LeftOut]] = []
                for row in rows:
                    if row["error"] is not None:
                        kept.append(row)
                        self._broken += 1
                        continue
                    remaining = self._sift(row, sample, caption, removed)
                    sample, caption = sample + 1, caption + len(row["captions"])
                    if remaining:
                        kept.append(remaining)
                        self._pairs += 1
                        self._captions += len(remaining["captions"])
                number = len(self._written)
                if path is not None:
                    kept = self._write_shard(before[path], kept, removed)
                writer.add(kept, shard=number)
        return SplitInfo(self._pairs, self._captions, self._broken, tuple(self._written))

    def _sift(self, row: Row, sample: int, caption: int, removed: list[tuple[Row, LeftOut]]) -> Row | None:
        """Return the row with what stays of it; None where nothing does."""

        def leave_out(reason: str, detail: str, whole: bool, captions: tuple[str, ...]) -> None:
            entry = LeftOut(reason, detail, whole, row["key"], row["image_id"], captions, row["origin"])
            removed.append((row, entry))

        if self.fates.samples[sample]:
            leave_out(*self.fates.describe(sample), True, tuple(row["captions"]))
            return None
        gone = [place for place in range(len(row["captions"])) if self.fates.captions[caption + place]]
        kept = [place for place in range(len(row["captions"])) if place not in gone]
        for place in gone:
            whole = not kept and place == gone[-1]
            leave_out(*self.fates.describe_caption(caption + place), whole, (row["captions"][place],))
        if not kept:
            return None
        return row | {name: [row[name][place] for place in kept] for name in ("captions", "caption_ids")}

    def _write_shard(self, before: ShardInfo, kept: list[Row], removed: list[tuple[Row, LeftOut]]) -> list[Row]:
        """Put the samples of a shard that stay under its new number; returns their rows, and the broken ones."""
        path = f"{self.table.source}/{self.table.split}/{len(self._written):06d}.tar"
        good = [row for row in kept if row["error"] is None]
        if not removed:
            (self.shards / before.path).rename(self.shards / path)
            self._written.append(replace(before, path=path))
            return [row | {"shard": path} if row["error"] is None else row for row in kept]
        reader = ShardReader(self.shards)
        self._note(removed, reader)
        with ExitStack() as stack:
            stack.callback(reader.close)
            shard = ShardWriter(self.shards / path, stack)
            places = iter([copied(row, stored_sample(row, reader), shard) for row in good])
            size, digest = shard.finish()
        if not good or before.path != path:
            (self.shards / before.path).unlink()
        if good:
            self._written.append(replace(before, path=path, samples=len(good), bytes=size, sha256=digest))
        return [row | {"shard": path} | next(places) if row["error"] is None else row for row in kept]

    def _note(self, removed: list[tuple[Row, LeftOut]], reader: ShardReader) -> None:
        for row, entry in removed:
            if self.left_out.examples.has_room(entry.reason):
                entry = replace(entry, picture=small_picture(_read_sample(row, reader).image))
            self.left_out.add([entry])


def stored_sample(row: Row, reader: ShardReader) -> Sample:
    """Return what the shard itself has of the sample of a row of the manifest."""
    return reader.stored(row["shard"], row["offset"], row["size"])


def _read_sample(row: Row, reader: ShardReader) -> Sample:
    return reader.read(row["shard"], row["offset"], row["size"])


def copied(row: Row, sample: Sample, shard: ShardWriter) -> Row:
    """Add a sample with the captions that its row has now; returns where it lies."""
    picture = sample.placed or sample.image
    members = sample_members(sample.key, picture, sample.source, sample.image_id, row["captions"], row["caption_ids"])
    offset, size = shard.add(members)
    return {"offset": offset, "size": size}


def by_shard(path: Path) -> Iterator[tuple[str | None, list[Row]]]:
    """Give the rows of a table shard by shard; broken ones go with the shard before them, or with none."""
    shard: str | None = None
    rows: list[Row] = []
    with open_parquet(path) as table:
        for batch in table.iter_batches(_BATCH):
            for row in batch.to_pylist():
                if row["shard"] not in (None, shard):
                    if rows:
                        yield shard, rows
                    shard, rows = row["shard"], []
                rows.append(row)
    if rows:
        yield shard, rows
