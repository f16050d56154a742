"""What a run trains on and starts from; its description gives the run its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zerovl.data.batches.sampling import Sampler, training_sampler
from zerovl.data.manifest import Manifest
from zerovl.distributed.ranks import Ranks
from zerovl.engine.checkpoints import saved_steps
from zerovl.errors import ZeroVLError
from zerovl.evaluation.gate_sources import gate_problem
from zerovl.model.text import CaptionTokenizer
from zerovl.model.text_towers import check_padding, resolve_text_config
from zerovl.model.towers import make_architecture
from zerovl.params import Params
from zerovl.training import fingerprint
from zerovl.training.inputs import check_verdict, tokenizer_folder
from zerovl.training.shard_place import ShardPlace, shard_place
from zerovl.training.start import Checkpoint, Start, find_parent, find_start
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class RunSpec:
    """The inputs of a run, all of them read and checked."""

    manifest: Manifest
    sampler: Sampler
    tokenizer: CaptionTokenizer
    start: Start | None  # weights to start from
    parent: Checkpoint | None  # of the run that this one goes on from
    description: dict[str, Any]

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
        return shard_place(self.params, self.workspace, self.spec.manifest, self.spec.sampler)


def make_spec(params: Params, workspace: Workspace) -> RunSpec:
    """Raises `ZeroVLError` for data that were not validated or that the gate cannot pass, and for a lost start."""
    manifest = Manifest.load(workspace.manifest)
    check_verdict(workspace, manifest)
    if problem := gate_problem(params.register_.gate, manifest):
        raise ZeroVLError(problem)
    if not manifest.training_sizes():
        raise ZeroVLError("no source has training pairs; add a train split to a folder of data.raw")
    train = params.train
    sampler = training_sampler(train, manifest)
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
    description = fingerprint.describe(params, architecture, manifest, tokenizer.folder, start, parent)
    spec = RunSpec(manifest, sampler, tokenizer, start, parent, description)
    if parent and not saved_steps(workspace.runs / spec.name / "checkpoints"):
        parent.require("continue_from")
    return spec
