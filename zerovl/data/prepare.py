"""Stage prepare: raw sources to shards, a manifest and, if the recipe wants one, a tokenizer.

The bytes of every output follow from the input and the parameters alone, not from the number of
worker processes (ZEROVL_WORKERS, default: all cores).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from zerovl.data import tokenizer_training
from zerovl.data.manifest import Manifest, ShardInfo, SplitInfo
from zerovl.data.manifest_writing import SplitWriter
from zerovl.data.pack import Packed, Unit, pack, start_worker
from zerovl.data.readers import sources
from zerovl.data.readers.records import Record
from zerovl.data.readers.sources import Source
from zerovl.data.readers.spool import Spool
from zerovl.errors import ZeroVLError
from zerovl.params import Params, PrepareParams
from zerovl.workspace import Workspace

PackAll = Callable[[Iterator[Unit]], Iterator[Packed]]

_SPOOL = ".fetched"  # folder of tars fetched from S3, beside the shards
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(params: Params, workspace: Workspace = Workspace()) -> Manifest:  # noqa: B008 (it is frozen)
    """Read all sources, write `data/shards`, `data/manifest` and `data/tokenizer`; returns the manifest.

    Broken inputs are rows of the manifest with a reason. Raises `ZeroVLError` for settings and
    sources that cannot be used at all and for a full disk; then there is no `manifest.json`.
    """
    workers = worker_count()
    chosen = sources.resolve(params.data, workspace.root)
    with _disk_full_explained(workspace.shards):
        for folder in (workspace.manifest, workspace.shards, workspace.tokenizer):
            _clear(folder)
        manifest = Manifest(workspace.manifest, _pack_sources(chosen, params.prepare, workspace, workers))
        tokens = tokenizer_training.run(manifest, workspace.tokenizer, params.prepare.tokenizer_vocab)
        manifest.save()
    _summarise(manifest, chosen, workspace, tokens)
    return manifest


def worker_count() -> int:
    """Worker processes: ZEROVL_WORKERS, else one a core."""
    text = os.environ.get("ZEROVL_WORKERS", "")
    if not text:
        return os.cpu_count() or 1
    if not text.isdigit() or not int(text):
        raise ZeroVLError(f"ZEROVL_WORKERS is {text!r}; set it to a positive number of processes, or unset it")
    return int(text)


def _pack_sources(
    chosen: list[Source], settings: PrepareParams, workspace: Workspace, workers: int
) -> dict[tuple[str, str], SplitInfo]:
    spool = Spool(workspace.shards / _SPOOL)
    splits: dict[tuple[str, str], SplitInfo] = {}
    with _packing(workers) as pack_all:
        for source in chosen:
            for split in source.splits:
                splits[source.name, split] = _pack_split(source, split, settings, workspace, spool, pack_all)
            here = [splits[source.name, split] for split in source.splits]
            if not any(info.pairs + info.broken for info in here):
                raise ZeroVLError(
                    f"source {source.name!r}: {source.path} has no samples; add its data, or take the source out"
                )
    shutil.rmtree(workspace.shards / _SPOOL, ignore_errors=True)
    return splits


def _pack_split(
    source: Source,
    split: str,
    settings: PrepareParams,
    workspace: Workspace,
    spool: Spool,
    pack_all: PackAll,
) -> SplitInfo:
    reading = sources.read(source, split, settings.max_caption_bytes, spool)
    units = _units(reading.records, source.name, split, settings, workspace.shards, spool)
    title = f"{source.name}/{split}"
    pairs = captions = broken = 0
    shards: list[ShardInfo] = []
    with (
        SplitWriter(workspace.manifest, source.name, split) as writer,
        tqdm(total=reading.total, desc=title, unit=" samples", delay=1) as bar,
    ):
        for packed in pack_all(units):
            for record in packed.unit.records:
                if record.picture:
                    spool.release(record.picture.path)
            writer.add(packed.rows, shard=len(shards))
            if packed.samples:
                shards.append(ShardInfo(packed.unit.name, packed.samples, packed.bytes, packed.sha256))
            good = [row for row in packed.rows if row["error"] is None]
            pairs += len(good)
            captions += sum(len(row["captions"]) for row in good)
            broken += len(packed.rows) - len(good)
            bar.update(len(packed.rows))
    for note in reading.notes:
        print(f"{title}: {note}")
    return SplitInfo(pairs, captions, broken, tuple(shards))


def _units(
    records: Iterator[Record], source: str, split: str, settings: PrepareParams, shards: Path, spool: Spool
) -> Iterator[Unit]:
    """Consecutive records by `shard_samples`; tars that they lie in are held until they are packed."""
    held = (_hold(record, spool) for record in records)
    number = 0
    while batch := tuple(islice(held, settings.shard_samples)):
        yield Unit(str(shards), source, split, number, batch, settings.max_side, settings.max_pixels)
        number += 1


def _hold(record: Record, spool: Spool) -> Record:
    if record.picture:
        spool.hold(record.picture.path)
    return record


@contextmanager
def _packing(workers: int) -> Iterator[PackAll]:
    """What turns units into shards, in their order: a pool of fresh processes, or this one alone."""
    if workers == 1:
        yield lambda units: map(pack, units)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker)
    try:
        yield lambda units: _in_order(units, pool, 2 * workers)
    except BrokenProcessPool:
        raise ZeroVLError(
            "a worker process died, most likely for lack of memory; set ZEROVL_WORKERS to less than "
            f"{workers}, or reduce prepare.shard_samples"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(units: Iterator[Unit], pool: ProcessPoolExecutor, window: int) -> Iterator[Packed]:
    """Results in the order of the units; `window` units at most are read ahead."""
    pending: deque[Future[Packed]] = deque()
    for unit in units:
        pending.append(pool.submit(pack, unit))
        if len(pending) >= window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _clear(folder: Path) -> None:
    """An empty folder, whatever an interrupted run left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _disk_full_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise ZeroVLError(
            f"{folder}: cannot write on ({error.strerror}), {free:,} bytes free; make room or put the project on "
            "a larger disk, then run it again"
        ) from None


def _summarise(manifest: Manifest, chosen: list[Source], workspace: Workspace, tokens: int) -> None:
    rows = [
        (
            f"{name}/{split}",
            f"{info.pairs:,} pairs",
            f"{info.captions:,} captions",
            f"{info.broken:,} broken",
            f"{len(info.shards):,} shard{'s' * (len(info.shards) != 1)}",
            f"{sum(shard.bytes for shard in info.shards) / 1e6:,.1f} MB",
        )
        for (name, split), info in manifest.splits.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        print("  ".join([row[0].ljust(widths[0]), *(cell.rjust(widths[n]) for n, cell in enumerate(row) if n)]))
    for split, meaning in (("valid", "never evaluated on"), ("train", "never trained on")):
        if lacking := [source.name for source in chosen if split not in source.splits]:
            print(f"no {split} split, so {meaning}: {', '.join(lacking)}")
    if tokens:
        print(f"tokenizer: {tokens} tokens in {workspace.tokenizer}")
    print(f"manifest: {workspace.manifest}")
