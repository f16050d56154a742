"""The filters that look at all samples together, over a manifest whose shards are packed.

What is equal or alike is known only when all sources were read. So all of it is packed first, then compared by the
manifest's tables, and the shards that lose something are written again (`rewriting`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from zerovl.data.filtering.agreement import Scorer, leave_out_disagreeing
from zerovl.data.filtering.duplicates import leave_out_alike, leave_out_equal
from zerovl.data.filtering.fates import Fates
from zerovl.data.filtering.leaks import leave_out_leaks
from zerovl.data.filtering.left_out_tables import LeftOutWriter, Tallies
from zerovl.data.filtering.repeated_captions import leave_out_repeated
from zerovl.data.filtering.rewriting import SplitRewriter
from zerovl.data.filtering.semantic_duplicates import PictureEmbedder, leave_out_semantic
from zerovl.data.filtering.usable_rows import TableRows, UsableRows
from zerovl.data.manifest import Manifest
from zerovl.params import FilterParams

_SCRATCH = ".filters"  # folder of what is compared, beside the shards


def leave_out_of_all(
    manifest: Manifest,
    tallies: Tallies,
    settings: FilterParams,
    shards: Path,
    scorer: Scorer | None = None,
    embedder: PictureEmbedder | None = None,
) -> tuple[Manifest, Tallies]:
    """Leave out leaked and repeated pictures and captions, and what models say, where there are any.

    `embedder` tells pictures that are nearly the same, `scorer` captions that do not fit.

    Returns the manifest and the counts as they are then. The same samples give the same result, in whatever number of
    processes they were packed.
    """
    if not _asked(settings, manifest) and scorer is None and embedder is None:
        return manifest, tallies
    rows = UsableRows.of(manifest)
    with _scratch(shards / _SCRATCH) as scratch:
        fates = Fates(rows, scratch)
        if settings.leaks != "keep":
            leave_out_leaks(rows, fates, settings.near_distance if settings.leaks == "near" else None)
        if settings.duplicates == "exact":
            leave_out_equal(rows, fates, scratch)
        elif settings.duplicates == "near":
            leave_out_alike(rows, fates, scratch, settings.near_distance)
        if embedder is not None:
            leave_out_semantic(rows, fates, scratch, shards, settings.semantic_duplicates, embedder)
        if settings.max_caption_repeats or settings.max_caption_share:
            leave_out_repeated(rows, fates, scratch, settings.max_caption_repeats, settings.max_caption_share)
        if scorer is not None:
            leave_out_disagreeing(rows, fates, shards, settings.agreement, scorer)
        return _rewritten(rows, fates, tallies, shards)


def _asked(settings: FilterParams, manifest: Manifest) -> bool:
    """Whether something may be left out: leaks, which are on by default, need pictures of both kinds of splits."""
    with_pairs = {split for (_, split), info in manifest.splits.items() if info.pairs}
    leaks = settings.leaks != "keep" and len(with_pairs) > 1
    return leaks or settings.duplicates != "keep" or bool(settings.max_caption_repeats or settings.max_caption_share)


def _rewritten(rows: UsableRows, fates: Fates, tallies: Tallies, shards: Path) -> tuple[Manifest, Tallies]:
    splits = dict(rows.manifest.splits)
    counts = {source: dict(by_split) for source, by_split in tallies.items()}
    for table in rows.tables:
        if _loses_something(table, fates):
            with LeftOutWriter(rows.manifest.folder, table.source, table.split) as writer:
                splits[table.source, table.split] = SplitRewriter(rows.manifest, shards, table, fates, writer).run()
            counts[table.source][table.split] = writer.tallies
    return Manifest(rows.manifest.folder, splits), counts


def _loses_something(table: TableRows, fates: Fates) -> bool:
    samples = fates.samples[table.samples.start : table.samples.stop]
    captions = fates.captions[table.captions.start : table.captions.stop]
    return bool(np.any(samples) or np.any(captions))


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
