"""One pass over the manifest: exact statistics of everything and a uniform sample of rows.

The manifest is read batch by batch; what stays in memory is a few numbers a shard, the distinct
caption lengths and sides, the sample, and the evaluation pictures' hashes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zerovl.data.filtering.drawn_sources import drawn_sources
from zerovl.data.filtering.filter_models import models_asked
from zerovl.data.filtering.left_out_tables import first_examples, load_tallies
from zerovl.data.manifest import SCHEMA, Manifest
from zerovl.data.plain_captions import plain_captions
from zerovl.data.validation.compared_columns import ComparedColumns
from zerovl.data.validation.measured_rows import MeasuredRows, measure, sample_table
from zerovl.data.validation.row_rules import judge_rows
from zerovl.data.validation.statistics import (
    EXAMPLES,
    Example,
    Integers,
    RuleFindings,
    Scan,
    ShardStatistics,
    SplitStatistics,
    example,
)
from zerovl.data.validation.tables import BATCH_ROWS, open_tables, place
from zerovl.files import atomic_write
from zerovl.params import ValidateParams


def scan(
    manifest: Manifest,
    settings: ValidateParams,
    compared: ComparedColumns,
    broken_csv: Path,
    advance: Callable[[int], object],
) -> Scan:
    """Read every row once; `advance` is told how many rows were read.

    Writes all quarantined inputs to `broken_csv` on the way.
    """
    result = Scan(
        models_asked=models_asked(manifest.folder),
        drawn_valid=drawn_sources(manifest.folder),
        left_out=load_tallies(manifest.folder),
    )
    for source, by_split in result.left_out.items():
        for split in by_split:
            result.left_out_examples[source, split] = first_examples(manifest.folder, source, split)
    usable = sum(info.pairs for info in manifest.splits.values())
    generator = np.random.default_rng(settings.seed)
    chosen = np.sort(generator.choice(usable, min(settings.sample_rows, usable), replace=False))
    pieces: list[pa.Table] = []
    seen = 0
    source_numbers = {name: number for number, name in enumerate(sorted({name for name, _ in manifest.splits}))}
    with atomic_write(broken_csv, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source", "split", "key", "image_id", "error", "origin"])
        for number, (parquet, (source, split)) in enumerate(
            zip(open_tables(manifest), sorted(manifest.splits), strict=True)
        ):
            statistics = result.splits.setdefault((source, split), SplitStatistics())
            start = 0
            for batch in parquet.iter_batches(BATCH_ROWS, columns=SCHEMA.names):
                places = place(number, start) + np.arange(len(batch), dtype=np.int64)
                good = batch.column("error").is_null()
                quarantined = batch.filter(pc.invert(good))
                _quarantine(result, statistics, quarantined, (source, split), writer)
                rows = measure(batch.filter(good), places[good.to_numpy(zero_copy_only=False)])
                _count(result, statistics, rows, (source, split))
                judge_rows(result, rows, settings)
                _note_values(compared, rows, source_numbers[source])
                if split == "valid":
                    _keep_hashes(result, rows)
                else:
                    compared.captions.add_strings(plain_captions(rows.text), rows.places[rows.parent])
                first, last = np.searchsorted(chosen, [seen, seen + len(rows.places)])
                pieces.append(sample_table(rows, chosen[first:last] - seen, (source, split)))
                seen += len(rows.places)
                start += len(batch)
                advance(len(batch))
            result.rows += start
    result.sample = pa.concat_tables(pieces) if pieces else None
    return result


def _quarantine(
    result: Scan, statistics: SplitStatistics, batch: pa.RecordBatch, split: tuple[str, str], writer: Any
) -> None:
    statistics.broken += len(batch)
    if not len(batch):
        return
    columns = [batch.column(name).to_pylist() for name in ("key", "image_id", "error", "origin")]
    for key, image_id, error, origin in zip(*columns, strict=True):
        writer.writerow([*split, key, image_id, error, origin])
        findings = result.reasons.setdefault(result.kinds.add(error), RuleFindings())
        findings.count += 1
        shown = example(key, origin, error)  # the same of each sample that a tar should have had
        if len(findings.examples) < EXAMPLES and shown not in findings.examples:
            findings.examples.append(shown)
            result.note("broken_fraction").examples = _first(result.reasons)


def _first(reasons: dict[str, RuleFindings]) -> list[Example]:
    """Return examples of as many different reasons as there is room for."""
    depth = range(EXAMPLES)
    return [each.examples[i] for i in depth for each in reasons.values() if i < len(each.examples)][:EXAMPLES]


def _count(result: Scan, statistics: SplitStatistics, rows: MeasuredRows, split: tuple[str, str]) -> None:
    batch = rows.batch
    statistics.pairs += len(batch)
    statistics.captions += len(rows.words)
    statistics.bytes += pc.sum(batch.column("bytes")).as_py() or 0
    statistics.words.add(rows.words)
    for histogram, name in ((statistics.width, "width"), (statistics.height, "height")):
        histogram.add(batch.column(name).drop_null().to_numpy(zero_copy_only=False).astype(np.int64))
    shards = batch.column("shard").fill_null("").dictionary_encode()
    codes = shards.indices.to_numpy(zero_copy_only=False)
    for code, name in enumerate(shards.dictionary.to_pylist()):
        of = codes == code
        shard = result.shards.setdefault(name, ShardStatistics(*split))
        shard.pairs += int(of.sum())
        shard.nulls += int(rows.nulls[of].sum())
        # fmin and fmax pass over NaN
        shard.words_min = float(np.fmin.reduce(rows.words_min[of], initial=shard.words_min))
        shard.words_max = float(np.fmax.reduce(rows.words_max[of], initial=shard.words_max))
        shard.side_min = float(np.fmin.reduce(rows.side[of], initial=shard.side_min))
        shard.aspect_max = float(np.fmax.reduce(rows.aspect[of], initial=shard.aspect_max))


def _note_values(compared: ComparedColumns, rows: MeasuredRows, source_number: int) -> None:
    def known(name: str) -> tuple[pa.Array, Integers]:
        column = rows.batch.column(name)
        return column.drop_null(), rows.places[column.is_valid().to_numpy(zero_copy_only=False)]

    for files, name in ((compared.keys, "key"), (compared.pictures, "sha256")):
        values, places = known(name)
        files.add_strings(values.to_pylist(), places)
    ids, places = known("image_id")
    compared.image_ids.add_integers(ids.to_numpy(zero_copy_only=False), source_number, places)
    lists = rows.batch.column("caption_ids")
    flat = pc.list_flatten(lists)
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    owner = owner[flat.is_valid().to_numpy(zero_copy_only=False)]
    flat = flat.drop_null().to_numpy(zero_copy_only=False)
    compared.caption_ids.add_integers(flat, source_number, rows.places[owner])


def _keep_hashes(result: Scan, rows: MeasuredRows) -> None:
    column = rows.batch.column("phash")
    result.valid_hashes.append(column.drop_null().to_numpy(zero_copy_only=False))
    result.valid_places.append(rows.places[column.is_valid().to_numpy(zero_copy_only=False)])
