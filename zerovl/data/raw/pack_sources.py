"""All sources to shards and the tables of the manifest, by a pool of processes.

The bytes of every output follow from the input and the parameters alone, not from the number of
worker processes (ZEROVL_WORKERS, default: all cores), nor from where they run (ZEROVL_DASK: a cluster).
"""

from __future__ import annotations

import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from zerovl import code_closure, cores
from zerovl.data.filtering.left_out_tables import LeftOutWriter, Tallies
from zerovl.data.filtering.sample_filters import sample_filters
from zerovl.data.manifest import ShardInfo, SplitInfo
from zerovl.data.manifest_writing import SplitWriter
from zerovl.data.placed_tars import write_catalogue
from zerovl.data.raw.cluster_packing import cluster_address, packing_on_cluster
from zerovl.data.raw.equal_pictures import grouping
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.in_place import MakeUnit, TarsInPlace, Work, indexing_here
from zerovl.data.raw.kept_units import KeptUnits
from zerovl.data.raw.layout import Source, is_remote
from zerovl.data.raw.pack import JpegSettings, PackAll, Packed, Unit
from zerovl.data.raw.records import Reading, Record
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_json
from zerovl.log import logger
from zerovl.params import PrepareParams
from zerovl.processes import worker_pool
from zerovl.text_format import plural
from zerovl.workspace import Workspace

Splits = dict[tuple[str, str], SplitInfo]  # (source, split) -> what is in it

_FETCHED = ".fetched"  # folder of files fetched from S3, beside the shards


def worker_count() -> int:
    """Return the number of worker processes: ZEROVL_WORKERS, else one a core; raises `ZeroVLError` for no number."""
    text = os.environ.get("ZEROVL_WORKERS", "")
    if not text:
        return cores.core_count()
    if not text.isdigit() or not int(text):
        raise ZeroVLError(f"ZEROVL_WORKERS is {text!r}; set it to a positive number of processes, or unset it")
    return int(text)


def pack_sources(
    chosen: list[Source], settings: PrepareParams, workspace: Workspace, workers: int
) -> tuple[Splits, Tallies]:
    """Write the shards and tables of all sources; returns what is in them, and what the filters of samples left out.

    Raises `ZeroVLError` for a source without samples, and where a worker process dies.
    """
    fetched = FetchedFiles(workspace.shards / _FETCHED)
    code = sha256_json(code_closure.digests("prepare"))
    kept = KeptUnits(str(workspace.packed), code, str(workspace.shards / _FETCHED))
    splits: Splits = {}
    left_out: Tallies = {}
    local = [Path(source.path) for source in chosen if not is_remote(source.path)]
    staying = [source for source in chosen if source.tars == "in_place"]
    if staying:
        workspace.tar_indexes.mkdir(parents=True, exist_ok=True)
        local.append(workspace.tar_indexes)
    packing = (
        packing_on_cluster(address, kept, workspace.shards, local, indexing_here(workers))
        if (address := cluster_address())
        else _packing(kept, workers)
    )
    in_place = TarsInPlace(workspace, workspace.shards / _FETCHED, settings.max_pixels)
    with packing as work:  # a cluster is reached before hours of indexing
        in_place.index(staying, work.index_all)
        for source in chosen:
            tallies = left_out.setdefault(source.name, {})
            for split in source.splits:
                with LeftOutWriter(workspace.manifest, source.name, split) as writer:
                    splits[source.name, split] = _pack_split(
                        source, split, settings, workspace, fetched, work.pack_all, writer, in_place
                    )
                tallies[split] = writer.tallies
            here = [splits[source.name, split] for split in source.splits]
            if not any(info.pairs + info.broken for info in here) and not any(tallies.values()):
                raise ZeroVLError(
                    f"source {source.name!r}: {source.path} has no samples; add its data, or take the source out"
                )
    write_catalogue(workspace.shards, in_place.catalogue)
    shutil.rmtree(workspace.shards / _FETCHED, ignore_errors=True)
    return splits, left_out


def _pack_split(
    source: Source,
    split: str,
    settings: PrepareParams,
    workspace: Workspace,
    fetched: FetchedFiles,
    pack_all: PackAll,
    left_out: LeftOutWriter,
    in_place: TarsInPlace,
) -> SplitInfo:
    make_unit = _unit_maker(source.name, split, settings, workspace.shards)
    equals: list[str] = []  # notes on pictures of equal bytes
    if source.tars == "in_place":
        reading = Reading(iter(()))
        all_packed = in_place.packed(source, split, settings, make_unit, pack_all, fetched)
    else:
        reading = source.layout.read(source, split, settings.max_caption_bytes, fetched)
        records = grouping(source.equal_pictures, split, reading)(reading.records, fetched, equals)
        all_packed = pack_all(_units(records, make_unit, settings.shard_samples, fetched))
    title = f"{source.name}/{split}"
    pairs = captions = broken = taken_over = 0
    shards: list[ShardInfo] = []
    faults: Counter[str] = Counter()
    with (
        SplitWriter(workspace.manifest, source.name, split) as writer,
        tqdm(total=reading.total, desc=title, unit=" samples", delay=1) as bar,
    ):
        for packed in all_packed:
            for record in packed.unit.records:
                if record.picture:
                    fetched.release(record.picture.path)
            writer.add(packed.rows, shard=len(shards))
            faults.update(packed.faults)
            left_out.add(packed.left_out)
            if packed.samples:
                shards.append(ShardInfo(packed.unit.name, packed.samples, packed.bytes, packed.sha256, packed.tar))
            good = [row for row in packed.rows if row["error"] is None]
            pairs += len(good)
            captions += sum(len(row["captions"]) for row in good)
            broken += len(packed.rows) - len(good)
            taken_over += packed.taken_over
            bar.update(len(packed.unit.records))
    if taken_over:
        logger().info(f"{title}: {plural(taken_over, 'shard')} taken over from a run that was interrupted")
    for note in (*reading.notes, *equals):
        logger().info(f"{title}: {note}")
    for fault, count in sorted(faults.items()):
        logger().warning(f"{title}: {plural(count, 'picture')} with {fault}, which was ignored")
    return SplitInfo(pairs, captions, broken, tuple(shards))


def _unit_maker(source: str, split: str, settings: PrepareParams, shards: Path) -> MakeUnit:
    """Return what makes a unit of the number of its shard and of its records."""
    filters = sample_filters(settings.filters)
    jpeg = JpegSettings(settings.jpeg_quality, settings.jpeg_chroma)

    def make_unit(number: int, records: tuple[Record, ...]) -> Unit:
        return Unit(str(shards), source, split, number, records, settings.max_side, settings.max_pixels, filters, jpeg)

    return make_unit


def _units(records: Iterator[Record], make_unit: MakeUnit, shard_samples: int, fetched: FetchedFiles) -> Iterator[Unit]:
    """Give consecutive records by `shard_samples`; fetched files that they lie in are held until they are packed."""
    held = (_hold(record, fetched) for record in records)
    number = 0
    while batch := tuple(islice(held, shard_samples)):
        yield make_unit(number, batch)
        number += 1


def _hold(record: Record, fetched: FetchedFiles) -> Record:
    if record.picture:
        fetched.hold(record.picture.path)
    return record


@contextmanager
def _packing(kept: KeptUnits, workers: int) -> Iterator[Work]:
    """Yield what turns units into shards, in their order: a pool of fresh processes, or this one alone."""
    if workers == 1:
        yield Work(lambda units: map(kept.pack, units), indexing_here(workers))
        return
    try:
        with worker_pool(workers) as pool:
            yield Work(lambda units: _in_order(units, kept, pool, 2 * workers), indexing_here(workers))
    except BrokenProcessPool:
        raise ZeroVLError(
            "a worker process died, most likely for lack of memory; set ZEROVL_WORKERS to less than "
            f"{workers}, or reduce prepare.shard_samples"
        ) from None


def _in_order(units: Iterator[Unit], kept: KeptUnits, pool: ProcessPoolExecutor, window: int) -> Iterator[Packed]:
    """Give results in the order of the units; `window` units at most are read ahead."""
    pending: deque[Future[Packed]] = deque()
    for unit in units:
        pending.append(pool.submit(kept.pack, unit))
        if len(pending) >= window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
