"""A run whose pairs come from tars that are read as they lie: where it goes on, what it says, what it has lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerovl.data.batches.arrangement import Arrange
from zerovl.data.batches.identities import identify_by
from zerovl.data.batches.loader import TrainBatches, size_key_of
from zerovl.data.batches.sides import Transform
from zerovl.data.streams.batches import streamed_batches
from zerovl.data.streams.places import Begin, Layout, Places, begin_at, has_places, lost_by_all, lost_until
from zerovl.data.streams.reader import StreamedSource
from zerovl.data.streams.schedule import StreamSchedule
from zerovl.engine.checkpoints import Checkpoints
from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.log import logger
from zerovl.text_format import plural
from zerovl.training.run_spec import Run
from zerovl.training.streamed_sources import streams_digest

UNSEEN = (
    "streamed pairs were neither validated nor filtered: no rule of validate has seen them, and duplicates and leaks "
    "of valid pictures are not known"
)
_NOT_WRITTEN = "what was lost of streamed pairs is not known: the last checkpoint, which counts it, is not there"


def places_of(run: Run, checkpoints: Checkpoints, start_step: int) -> Places | None:
    """Return where this rank's readers go on, and have checkpoints keep it from here on; None without streams.

    Raises `ZeroVLError` where a source has fewer tars than readers, or a checkpoint of this run lacks its places.
    """
    if not run.spec.streams:
        return None
    ranks, layout = run.ranks, _layout(run)
    for source in run.spec.streams:
        check_tars(source, layout)
    places = Places(Begin(layout), ranks.rank)
    if start_step:
        own, parent = checkpoints.path(start_step), run.spec.parent
        found = own if own.is_dir() or parent is None else parent.path
        if found == own or has_places(found):
            places = Places(begin_at(found, layout), ranks.rank, lost_until(found, ranks.rank, ranks.world_size))
        _tell_new(run, found, layout.tars.keys() - places.begin.first.keys())
    checkpoints.keep_beside(places.file)
    return places


def _tell_new(run: Run, checkpoint: Path, sources: set[str]) -> None:
    if sources and run.ranks.is_first:
        names = ", ".join(sorted(sources))
        logger().info(f"{names}: read from the first tar on, as {checkpoint} was not trained on these tars")


def _layout(run: Run) -> Layout:
    streaming = run.params.train.streaming
    workers = max(1, run.params.machine.loader_workers)
    digests = streams_digest(run.spec.streams)
    return Layout(digests, run.ranks.world_size, workers, streaming.chapter_tars, streaming.shuffle_buffer)


def check_tars(source: StreamedSource, layout: Layout) -> None:
    """Raise `ZeroVLError` where a source has fewer tars than readers, two of which would give the same pairs."""
    tars = len(source.tars)
    if tars < layout.readers:
        fix = (
            f"set machine.loader_workers to {tars // layout.ranks} or less, or write smaller tars"
            if tars >= layout.ranks
            else f"write smaller tars, or set machine.ranks to {tars} or less"
        )
        raise ZeroVLError(
            f"train.streaming: {source.name}: {plural(tars, 'tar')} for {layout.readers} readers ({layout.ranks} ranks "
            f"x {layout.workers} machine.loader_workers), and two that read one tar would give its pairs twice; {fix}"
        )


def batches_of(
    run: Run, places: Places | None, micro_batch: int, start_step: int, transform: Transform, arrange: Arrange
) -> TrainBatches:
    """Return this rank's batches from `start_step` on."""
    assert isinstance(run.spec.sampler, StreamSchedule)
    assert places is not None
    train, tokenizer = run.params.train, run.spec.tokenizer
    return streamed_batches(
        sources=run.spec.streams,
        schedule=run.spec.sampler,
        places=places,
        tokenize=tokenizer,
        transform=transform,
        augment=train.augment,
        max_pixels=run.params.prepare.max_pixels,
        micro_batch=micro_batch,
        rank=run.ranks.rank,
        world_size=run.ranks.world_size,
        start_step=start_step,
        workers=run.params.machine.loader_workers,
        identify=identify_by(train.equal_pairs, tokenizer),
        arrange=arrange,
        size_key=size_key_of(train.step),
        prefetch_bytes=run.params.machine.prefetch_bytes,
    )


def describe(run: Run) -> list[str]:
    """Return the lines of the block at the start: what is streamed, and what nobody has looked at."""
    streaming = run.params.train.streaming
    given = {source.name: bool(source.pairs) for source in streaming.sources}
    lines = [
        f"{source.name}: {plural(len(source.tars), 'tar')}, {source.pairs:,} pairs as "
        f"{'its pairs say' if given[source.name] else 'their _stats.json say'}"
        for source in run.spec.streams
    ]
    readers = run.ranks.world_size * max(1, run.params.machine.loader_workers)
    lines.append(
        f"read as they come by {plural(readers, 'reader')}, shuffled among {streaming.shuffle_buffer} samples of "
        f"each source; a resume with as many readers is exact, and reads up to {streaming.chapter_tars} tars again"
    )
    lines.append(UNSEEN)
    return lines


def write_report(run: Run, checkpoint: Path, pairs_seen: int) -> list[str]:
    """Write what was read and lost of each source up to a checkpoint; returns what a reader of the report must know."""
    lost = {source: found.as_dict() for source, found in sorted(lost_by_all(checkpoint).items())}
    found = {"pairs": run.spec.sizes, "pairs_seen": pairs_seen, "lost": lost}
    write_json(run.workspace.training_streams, found)
    unknown = () if has_places(checkpoint) else (_NOT_WRITTEN,)
    return [UNSEEN, *unknown, *(_loss(source, reasons, pairs_seen) for source, reasons in lost.items() if reasons)]


def _loss(source: str, reasons: dict[str, Any], pairs_seen: int) -> str:
    worst = sorted(reasons.items(), key=lambda item: (-item[1]["count"], item[0]))[:3]
    parts = ", ".join(f"{its['count']:,} x {reason} ({its['example']})" for reason, its in worst)
    total = sum(its["count"] for its in reasons.values())
    return f"{source}: {plural(total, 'sample')} lost while {pairs_seen:,} pairs of all sources were taken: {parts}"
