"""One pass over the manifest: exact statistics of everything and a uniform sample of rows.

The manifest is read batch by batch; what stays in memory is a few numbers a shard, the distinct
caption lengths and sides, the sample, and the evaluation pictures' hashes.

Shapes: `n` usable rows of a batch, `c` their captions.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zerovl.data.manifest import SCHEMA, Manifest
from zerovl.data.validation.repeats import Spill
from zerovl.data.validation.statistics import (
    EXAMPLES,
    Example,
    Integers,
    Offences,
    Scan,
    ShardStatistics,
    SplitStatistics,
    example,
)
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write
from zerovl.params import ValidateParams

REQUIRED = [name for name in SCHEMA.names if name not in ("recoded", "error")]
BATCH_ROWS = 16_384
_REASONS = 50
_PLACE_BITS = 40  # place = table number << 40 | row
_WORD = r"[^\s\p{Z}\x0b\x1c-\x1f\x{85}]+"  # what str.split leaves, in the syntax of RE2
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
HOLLOW = r"^(\s|<[^<>]*>|&[#a-zA-Z0-9]+;|https?://\S+|www\.\S+)+$"  # nothing but markup and addresses


@dataclass(frozen=True)
class Spills:
    """Where the scan leaves the values that must not repeat."""

    keys: Spill
    image_ids: Spill
    caption_ids: Spill
    pictures: Spill


@dataclass(frozen=True)
class Rows:
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
        return example(self.batch.column("key")[row].as_py(), self.batch.column("origin")[row].as_py(), detail)


def place(table: int, row: int) -> int:
    """One integer for a row of the manifest; `table` counts in the sorted splits."""
    return table << _PLACE_BITS | row


def table_of(places: Integers) -> Integers:
    return places >> _PLACE_BITS


def open_tables(manifest: Manifest) -> list[pq.ParquetFile]:
    """The Parquet files of all splits, sorted; raises `ZeroVLError` for a missing or foreign one."""
    files = []
    for source, split in sorted(manifest.splits):
        path = manifest.table_path(source, split)
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ZeroVLError(f"{path}: cannot be read ({error}); run `dvc repro -f prepare`") from None
        missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
        if missing:
            raise ZeroVLError(f"{path}: no column {', '.join(missing)}; run `dvc repro -f prepare`")
        files.append(file)
    return files


def scan(
    manifest: Manifest, settings: ValidateParams, spills: Spills, broken_csv: Path, advance: Callable[[int], object]
) -> Scan:
    """Read every row once; `advance` is told how many rows were read.

    Writes all quarantined inputs to `broken_csv` on the way.
    """
    result = Scan()
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
                rows = _measure(batch.filter(good), places[good.to_numpy(zero_copy_only=False)])
                _count(result, statistics, rows, (source, split))
                _judge(result, rows, settings)
                _spill(spills, rows, source_numbers[source])
                if split == "valid":
                    _keep_hashes(result, rows)
                first, last = np.searchsorted(chosen, [seen, seen + len(rows.places)])
                pieces.append(_sample(rows, chosen[first:last] - seen, (source, split)))
                seen += len(rows.places)
                start += len(batch)
                advance(len(batch))
            result.rows += start
    result.sample = pa.concat_tables(pieces) if pieces else None
    return result


def _measure(batch: pa.RecordBatch, places: Integers) -> Rows:
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
    return Rows(batch, places, text, parent, words, words_min, words_max, side, aspect, nulls)


def _quarantine(
    result: Scan, statistics: SplitStatistics, batch: pa.RecordBatch, split: tuple[str, str], writer: Any
) -> None:
    statistics.broken += len(batch)
    if not len(batch):
        return
    columns = [batch.column(name).to_pylist() for name in ("key", "image_id", "error", "origin")]
    for key, image_id, error, origin in zip(*columns, strict=True):
        writer.writerow([*split, key, image_id, error, origin])
        # "9000x9000 pixels" and "8000x9000 pixels" are one reason; so the number of reasons stays small.
        reason = re.sub(r"\d+", "#", error)
        if reason not in result.reasons and len(result.reasons) >= _REASONS:
            reason = "other reasons"
        offences = result.reasons.setdefault(reason, Offences())
        offences.count += 1
        if len(offences.examples) < EXAMPLES:
            offences.examples.append(example(key, origin, error))
            result.note("broken_fraction").examples = _first(result.reasons)


def _first(reasons: dict[str, Offences]) -> list[Example]:
    """Examples of as many different reasons as there is room for."""
    depth = range(EXAMPLES)
    return [each.examples[i] for i in depth for each in reasons.values() if i < len(each.examples)][:EXAMPLES]


def _count(result: Scan, statistics: SplitStatistics, rows: Rows, split: tuple[str, str]) -> None:
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


def _judge(result: Scan, rows: Rows, settings: ValidateParams) -> None:
    """Count what breaks the rules that look at one row."""

    def offend(rule: str, bad: npt.NDArray[np.bool_], owner: Integers, detail: Callable[[int], str]) -> None:
        offences = result.note(rule)
        offences.count += int(bad.sum())
        for index in np.flatnonzero(bad)[: EXAMPLES - len(offences.examples)].tolist():
            offences.examples.append(rows.example(int(owner[index]), detail(index)))

    def extreme(rule: str, values: npt.NDArray[Any], best: np.ufunc) -> None:
        known = values[~np.isnan(values)]
        if len(known):
            offences = result.note(rule)
            so_far = [] if offences.extreme is None else [offences.extreme]
            offences.extreme = float(best.reduce([best.reduce(known), *so_far]))

    def matches(pattern: str) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = pc.match_substring_regex(rows.text, pattern).to_numpy(zero_copy_only=False)
        return found

    def caption(index: int) -> str:
        return repr(rows.text[index].as_py()[:120])

    def missing(row: int) -> str:
        names = [name for name in REQUIRED if not rows.batch.column(name)[row].is_valid]
        return f"no {', '.join(names) or 'captions'}"

    each = np.arange(len(rows.places))
    extreme("caption_words_min", rows.words, np.minimum)
    extreme("caption_words_max", rows.words, np.maximum)
    extreme("image_side", rows.side, np.minimum)
    extreme("image_aspect", rows.aspect, np.maximum)
    result.note("complete").count += int(rows.nulls.sum() - np.count_nonzero(rows.nulls))  # more than one a row
    offend("complete", rows.nulls > 0, each, missing)
    offend("captions_not_blank", rows.words == 0, rows.parent, caption)
    offend("caption_content", matches(CONTROL) | matches(HOLLOW) & (rows.words > 0), rows.parent, caption)
    offend("caption_words_min", rows.words < settings.min_caption_words, rows.parent, caption)
    offend("caption_words_max", rows.words > settings.max_caption_words, rows.parent, caption)
    sides = [rows.batch.column(name) for name in ("width", "height")]
    offend("image_side", rows.side < settings.min_side, each, lambda i: f"{sides[0][i]}x{sides[1][i]}")
    offend("image_aspect", rows.aspect > settings.max_aspect, each, lambda i: f"{sides[0][i]}x{sides[1][i]}")


def _spill(spills: Spills, rows: Rows, source_number: int) -> None:
    def known(name: str) -> tuple[pa.Array, Integers]:
        column = rows.batch.column(name)
        return column.drop_null(), rows.places[column.is_valid().to_numpy(zero_copy_only=False)]

    for spill, name in ((spills.keys, "key"), (spills.pictures, "sha256")):
        values, places = known(name)
        spill.add_strings(values.to_pylist(), places)
    ids, places = known("image_id")
    spills.image_ids.add_integers(ids.to_numpy(zero_copy_only=False), source_number, places)
    lists = rows.batch.column("caption_ids")
    flat = pc.list_flatten(lists)
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    owner = owner[flat.is_valid().to_numpy(zero_copy_only=False)]
    flat = flat.drop_null().to_numpy(zero_copy_only=False)
    spills.caption_ids.add_integers(flat, source_number, rows.places[owner])


def _keep_hashes(result: Scan, rows: Rows) -> None:
    column = rows.batch.column("phash")
    result.valid_hashes.append(column.drop_null().to_numpy(zero_copy_only=False))
    result.valid_places.append(rows.places[column.is_valid().to_numpy(zero_copy_only=False)])


def _sample(rows: Rows, chosen: Integers, split: tuple[str, str]) -> pa.Table:
    """The chosen rows with what Great Expectations looks at; one caption stands for all of a row."""
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


def train_hashes(manifest: Manifest) -> Iterator[tuple[npt.NDArray[np.uint64], Integers]]:
    """(hash (n,), place (n,)) of the usable training pictures, batch by batch."""
    for number, (parquet, (_, split)) in enumerate(zip(open_tables(manifest), sorted(manifest.splits), strict=True)):
        if split != "train":
            continue
        start = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=["phash", "error"]):
            keep = pc.and_(batch.column("error").is_null(), batch.column("phash").is_valid())
            places = place(number, start) + np.flatnonzero(keep.to_numpy(zero_copy_only=False))
            yield batch.column("phash").filter(keep).to_numpy(zero_copy_only=False), places
            start += len(batch)


def look_up(manifest: Manifest, places: set[int]) -> dict[int, tuple[str, str]]:
    """place -> (key, origin); reads only the row groups that hold one of them."""
    found: dict[int, tuple[str, str]] = {}
    for number, parquet in enumerate(open_tables(manifest)):
        start = place(number, 0)
        for group in range(parquet.metadata.num_row_groups):
            stop = start + parquet.metadata.row_group(group).num_rows
            if wanted := [each for each in places if start <= each < stop]:
                table = parquet.read_row_group(group, columns=["key", "origin"])
                for each in wanted:
                    key, origin = (table.column(name)[each - start].as_py() or "" for name in ("key", "origin"))
                    found[each] = (key, origin)
            start = stop
    return found
