"""What a run trains on and starts from; its description gives the run its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from zerovl.data.batches.sampling import Sampler, training_sampler
from zerovl.data.batches.visits import epoch_sizes
from zerovl.data.manifest import Manifest
from zerovl.data.open_shards import ShardFiles, shard_root
from zerovl.data.streams.reader import StreamedSource
from zerovl.data.streams.schedule import StreamSchedule
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoint_folder import saved_steps
from zerovl.errors import ZeroVLError
from zerovl.evaluation.gate_sources import gate_problem
from zerovl.model.text import CaptionTokenizer
from zerovl.model.text_towers import check_padding, resolve_text_config
from zerovl.model.towers import make_architecture
from zerovl.params import Params, TrainParams
from zerovl.training import fingerprint
from zerovl.training.inputs import check_verdict, tokenizer_folder
from zerovl.training.shard_place import ShardPlace, shard_place
from zerovl.training.start import Checkpoint, Start, find_parent, find_start
from zerovl.training.streamed_sources import stream_schedule, streamed_sources, streams_digest
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class RunSpec:
    """The inputs of a run, all of them read and checked."""

    manifest: Manifest
    sampler: Sampler | StreamSchedule
    tokenizer: CaptionTokenizer
    start: Start | None  # weights to start from
    parent: Checkpoint | None  # of the run that this one goes on from
    description: dict[str, Any]
    sizes: dict[str, int]  # pairs that it trains on, by source, sorted
    visits: dict[str, int]  # of an epoch, by source
    streams: list[StreamedSource] = field(default_factory=list)  # where pairs are streamed

    @property
    def name(self) -> str:
        """The fingerprint, by which the run's folder is called."""
        return fingerprint.digest(self.description)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.sampler.steps


@dataclass(frozen=True)
class Run:
    """A run on one of its ranks."""

    params: Params
    workspace: Workspace
    ranks: Ranks
    spec: RunSpec

    @property
    def folder(self) -> Path:
        """Where its state lives."""
        return self.workspace.runs / self.spec.name

    @cached_property
    def shards(self) -> ShardPlace:
        """How its training shards are read; raises `ZeroVLError` where their cache is too small."""
        if isinstance(self.spec.sampler, StreamSchedule):
            root = shard_root(self.params.machine, self.workspace)
            files = ShardFiles.of_split(self.spec.manifest, "valid", root, self.workspace.root)
            return ShardPlace(files, self.workspace, self.spec.manifest, None, None, [])
        return shard_place(self.params, self.workspace, self.spec.manifest, self.spec.sampler)


def make_spec(params: Params, workspace: Workspace) -> RunSpec:
    """Raises `ZeroVLError` for data that were not validated or that the gate cannot pass, and for a lost start."""
    manifest = Manifest.load(workspace.manifest)
    check_verdict(workspace, manifest)
    if problem := gate_problem(params.register_.gate, manifest):
        raise ZeroVLError(problem)
    train = params.train
    streams = streamed_sources(params, workspace) if train.reading == "streaming" else []
    sampler = stream_schedule(train, streams) if streams else _indexed_sampler(train, manifest)
    sizes = {source.name: source.pairs for source in streams} or manifest.training_sizes()
    visits = sizes if streams else epoch_sizes(train.epoch_of, manifest)
    start, parent = find_start(params, workspace), find_parent(params, workspace)
    if parent and parent.step >= sampler.steps:
        raise ZeroVLError(
            f"train.continue_from: {parent.reference}: with these settings a run has {sampler.steps} steps, and "
            f"{parent.step} lie behind; raise train.epochs (now {train.epochs:g})"
        )
    tokenizer = CaptionTokenizer(tokenizer_folder(params, workspace, start or parent), params.model.max_tokens)
    text_config = resolve_text_config(params.model, tokenizer.vocab_size)
    check_padding(text_config, tokenizer.special.pad)
    architecture = make_architecture(params.model, text_config)
    description = fingerprint.describe(
        params, architecture, manifest, tokenizer.folder, start, parent, streams_digest(streams)
    )
    spec = RunSpec(manifest, sampler, tokenizer, start, parent, description, sizes, visits, streams)
    if parent and not saved_steps(workspace.runs / spec.name / "checkpoints"):
        parent.require("continue_from")
    return spec


def _indexed_sampler(train: TrainParams, manifest: Manifest) -> Sampler:
    if not manifest.training_sizes():
        raise ZeroVLError("no source has training pairs; add a train split to a folder of data.raw")
    return training_sampler(train, manifest)
