"""Sources whose tars stay where they lie: indexed once each, and shards that only say where their pictures are.

A tar that is not whole, or whose samples do not lie together, is packed as everything else is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zerovl.data.placed_tars import PlacedPicture, TarPlace
from zerovl.data.raw import webdataset
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import Source, is_remote
from zerovl.data.raw.pack import PackAll, Packed, Stored, Unit, pack_with, read_picture
from zerovl.data.raw.records import Picture, Record
from zerovl.data.raw.tar_index import (
    IndexAll,
    IndexHead,
    PictureFacts,
    TarIndex,
    TarTask,
    index_tar,
    is_indexed,
    local_state,
    read_index,
)
from zerovl.data.raw.tar_samples import TarSample, lacking_samples
from zerovl.data.s3_shards import S3Files
from zerovl.errors import ZeroVLError
from zerovl.images import BrokenImageError
from zerovl.log import logger
from zerovl.params import PrepareParams
from zerovl.processes import worker_pool
from zerovl.text_format import plural
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class Work:
    """Who does what can be done in parts: processes of this machine, or of a cluster."""

    pack_all: PackAll
    index_all: IndexAll


MakeUnit = Callable[[int, tuple[Record, ...]], Unit]  # number of the shard in its split, records -> unit


@dataclass
class TarsInPlace:
    """Indexes tars, and gives what becomes of their samples; `catalogue` has those that stayed, by their sha256."""

    workspace: Workspace
    scratch: Path  # folder of fetched files
    max_pixels: int
    catalogue: dict[str, TarPlace] = field(default_factory=dict)
    _indexed: dict[tuple[str, str], list[TarTask]] = field(default_factory=dict)  # of each source's split

    def index(self, sources: list[Source], index_all: IndexAll) -> None:
        """Index the tars of sources that are to stay, where that was not done before; raises `ZeroVLError`."""
        for source in sources:
            for split in source.splits:
                tasks = self._indexed[source.name, split] = self._tasks(source, split)
                missing = [task for task in tasks if not is_indexed(task)]
                logger().info(
                    f"{source.name}/{split}: {plural(len(tasks), 'tar')} in place, "
                    f"{len(tasks) - len(missing)} as they were, {len(missing)} to be read"
                )
                with tqdm(total=len(missing), desc=f"{source.name}/{split}: index", unit=" tars", delay=1) as bar:
                    for _ in index_all(missing):
                        bar.update()

    def packed(
        self,
        source: Source,
        split: str,
        settings: PrepareParams,
        make_unit: MakeUnit,
        pack_all: PackAll,
        fetched: FetchedFiles,
    ) -> Iterator[Packed]:
        """Give one shard a tar, in their order; of a tar that cannot stay those that it is packed into."""
        if settings.max_side:
            logger().info(
                f"{source.name}/{split}: prepare.max_side {settings.max_side} has no effect on tars in place: their "
                "pictures stay as they are"
            )
        records, number = webdataset.tar_records(source, split, settings.max_caption_bytes), 0
        for task in self._indexed[source.name, split]:
            index = read_index(task)
            if index.head.unfit is None:
                samples = chain(index.samples, _lacking(source, task, index.head))
                unit = make_unit(number, tuple(records.of(task.name, samples)))
                yield self._placed(unit, task, index)
                number += 1
                continue
            logger().warning(f"{task.name}: is packed, and not used in place: {index.head.unfit}")
            scratch, known = task.entry.name, index.head.samples
            opened = webdataset.opened_records(records, source, task.name, task.path, fetched, scratch, known)
            batches = _held(opened, fetched)
            units = []
            while batch := tuple(islice(batches, settings.shard_samples)):
                units.append(make_unit(number, batch))
                number += 1
            yield from pack_all(iter(units))
        for note in records.notes():
            logger().info(f"{source.name}/{split}: {note}")

    def _placed(self, unit: Unit, task: TarTask, index: TarIndex) -> Packed:
        self.catalogue.setdefault(index.head.sha256, TarPlace(task.place, index.head.bytes))
        return replace(pack_with(unit, PicturesOfTar(index).take), tar=index.head.sha256)

    def _tasks(self, source: Source, split: str) -> list[TarTask]:
        tars = webdataset.split_tars(source, split)
        tasks = []
        for name, path in tars:
            state = _state(path) if source.listed is None else source.listed.states[path]
            folder = str(self.workspace.tar_indexes)
            place = self._place(path)
            is_stated = source.listed is None or source.listed.is_stated(path)
            tasks.append(TarTask(name, path, place, state, folder, str(self.scratch), self.max_pixels, is_stated))
        return tasks

    def _place(self, path: str) -> str:
        """Return how the catalogue names a tar: relative to the project where it lies in there."""
        if is_remote(path):
            return path
        place, root = os.path.abspath(path), os.path.abspath(self.workspace.root)
        return os.path.relpath(place, root) if Path(place).is_relative_to(root) else place


@dataclass(frozen=True)
class PicturesOfTar:
    """What the index knows of the pictures of one tar, in the place of their bytes."""

    index: TarIndex

    def take(self, picture: Picture, row: dict[str, Any]) -> Stored:
        """Return the picture as it goes into a shard; raises `BrokenImageError` with what the index says."""
        facts: PictureFacts = self.index.facts[picture.offset]
        row["sha256"] = facts.sha256
        if facts.error is not None:
            raise BrokenImageError(facts.error)
        size = picture.size or 0
        placed = PlacedPicture(self.index.head.sha256, picture.offset, size, facts.crc32)
        return Stored(placed, size, facts.width, facts.height, facts.phash, None, facts.faults, lambda: _bytes(picture))


def _lacking(source: Source, task: TarTask, head: IndexHead) -> Iterator[TarSample]:
    """Give a sample with a problem for each that a whole tar lacks by the file beside it.

    That file is looked at again where it said so: it may have been deleted since, as the problem advises.
    """
    if head.samples is not None and head.stated is not None and head.samples < head.stated:
        yield from lacking_samples(webdataset.stated_samples(source, task.path), task.name, head.samples)


def _held(records: Iterator[Record], fetched: FetchedFiles) -> Iterator[Record]:
    """Hold the fetched file that records lie in, each until it is packed."""
    for record in records:
        if record.picture:
            fetched.hold(record.picture.path)
        yield record


def _bytes(picture: Picture) -> bytes:
    if is_remote(picture.path):
        return S3Files().read(picture.path, picture.offset, picture.size or 0)
    return read_picture(picture)


def _state(path: str) -> str:
    try:
        return local_state(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def indexing_here(workers: int) -> IndexAll:
    """Return what indexes tars in a pool of fresh processes, or in this one alone."""
    return lambda tasks: _indexed(tasks, workers)


def _indexed(tasks: list[TarTask], workers: int) -> Iterator[object]:
    """What is done is kept, whatever happens next."""
    if workers == 1 or len(tasks) < 2:
        yield from map(index_tar, tasks)
        return
    try:
        with worker_pool(min(workers, len(tasks))) as pool:
            for done in as_completed([pool.submit(index_tar, task) for task in tasks]):
                yield done.result()
    except BrokenProcessPool:
        raise ZeroVLError(
            "a worker process died while it indexed tars, most likely for lack of memory; set ZEROVL_WORKERS to "
            f"less than {workers} and run this again: what is indexed stays so"
        ) from None
