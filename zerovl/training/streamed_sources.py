"""Which tars a run streams, how many pairs they have, and the steps that follow."""

from __future__ import annotations

from pathlib import Path

from zerovl.data.batches.sampling import count_steps
from zerovl.data.raw.tar_captions import caption_a_line, caption_reader, one_caption
from zerovl.data.streams.addresses import count_samples, expand, open_stream
from zerovl.data.streams.kept_tars import KeptTars
from zerovl.data.streams.places import tars_digest
from zerovl.data.streams.reader import OpenTar, Pipeline, StreamedSource, TarPipeline
from zerovl.data.streams.schedule import StreamSchedule
from zerovl.data.streams.tar_stream import SampleRules
from zerovl.errors import ZeroVLError
from zerovl.params import MachineParams, Params, StreamParams, TrainParams
from zerovl.text_format import names, parse_size
from zerovl.workspace import Workspace

_KEPT = "streams"  # in the folder of machine.shard_cache


def streamed_sources(params: Params, workspace: Workspace) -> list[StreamedSource]:
    """Return the sources of `train.streaming`, sorted by name; raises `ZeroVLError` for tars that are not there."""
    chosen = sorted(params.train.streaming.sources, key=lambda source: source.name)
    return [_streamed(source, params, workspace) for source in chosen]


def _streamed(source: StreamParams, params: Params, workspace: Workspace) -> StreamedSource:
    key = f"train.streaming: {source.name}"
    tars = expand(source.urls, workspace.root, f"{key}: urls")
    pairs, unstated = (source.pairs, []) if source.pairs else count_samples(tars)
    if unstated:
        raise ZeroVLError(
            f"{key}: how many pairs its tars have is not known, as {len(unstated):,} of {len(tars):,} have no "
            f"_stats.json or .idx beside them ({names(unstated, 3)}); correct its urls where there is no such tar, or "
            "set its pairs, which say how long an epoch is and how often the source comes"
        )
    if not pairs:
        raise ZeroVLError(f"{key}: its _stats.json say that there are no pairs; correct its urls, or set its pairs")
    return StreamedSource(source.name, tars, pairs, _pipeline(source, params))


def _pipeline(source: StreamParams, params: Params) -> Pipeline:
    """Return what makes samples of the tars of a source."""
    captions = caption_reader(source.json_caption, caption_a_line if source.txt_captions == "lines" else one_caption)
    rules = SampleRules(source.name, captions, params.prepare.max_caption_bytes)
    return TarPipeline(rules, params.train.streaming.shuffle_buffer, _opened(params.machine))


def _opened(machine: MachineParams) -> OpenTar:
    if not machine.keep_streams:
        return open_stream
    folder = Path(machine.shard_cache.folder).expanduser() / _KEPT
    return KeptTars(folder, parse_size(machine.shard_cache.size, "machine.shard_cache.size"))


def stream_schedule(train: TrainParams, sources: list[StreamedSource]) -> StreamSchedule:
    """Return the steps over some sources; raises `ZeroVLError` where a batch would have to repeat pairs."""
    sizes = {source.name: source.pairs for source in sources}
    debiased = train.sampling == "debiased"
    # A debiased batch has pairs of one source, any other of all of them.
    name, pairs = min(sizes.items(), key=lambda item: item[1]) if debiased else ("all sources", sum(sizes.values()))
    if pairs < train.batch_size:
        raise ZeroVLError(
            f"train.streaming: {name}: {pairs} pairs, fewer than train.batch_size {train.batch_size}; a batch would "
            f"repeat pairs, and these would be false negatives. Set train.batch_size to {pairs} or less, or add pairs"
        )
    steps = count_steps(train.epochs, sum(sizes.values()), train.batch_size)
    return StreamSchedule(sizes, train.batch_size, steps, train.seed, debiased)


def streams_digest(sources: list[StreamedSource]) -> dict[str, str]:
    """Return a name for the list of tars of each source: other tars are another run."""
    return {source.name: tars_digest(source.tars) for source in sources}
