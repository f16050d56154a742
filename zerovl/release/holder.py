"""Compare for the gate: the holder of the alias on the queries of the candidate in the workspace."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from zerovl import own_gpus
from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import paired_difference
from zerovl.evaluation.items import NewerFormError, read_items
from zerovl.evaluation.job import Job
from zerovl.evaluation.metrics import MEAN, RETRIEVAL
from zerovl.evaluation.paired import difference
from zerovl.evaluation.query_ranks import clusters_of, pool_clusters_of, read_queries
from zerovl.evaluation.scores import write_queries
from zerovl.files import read_json
from zerovl.model.encoder import Encoder
from zerovl.params import EvaluateParams, MachineParams, Params
from zerovl.registry import cache, release_files
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.transfer import DamagedError
from zerovl.release.gate import Comparison, LostHolder
from zerovl.release.kept_ranks import fetch_items, fetch_queries
from zerovl.release.named_drops import Measured, differences
from zerovl.release.provenance import classification_sets
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class NotKept:
    """There are no places by query of the holder on the candidate's data."""

    why: str


@dataclass(frozen=True)
class Holders:
    """Compares holders with the candidate on the validation data of a workspace (a `gate.Compare`)."""

    settings: EvaluateParams
    workspace: Workspace
    machine: MachineParams
    names: Collection[str]  # of metrics that are compared beside the headline

    @classmethod
    def of(cls, params: Params, workspace: Workspace) -> Holders:
        """Compare as parameters say."""
        return cls(params.evaluate, workspace, params.machine, tuple(params.register_.gate.max_drops))

    @property
    def project(self) -> Path:
        """The folder that has the tars in place."""
        return self.workspace.root

    def __call__(self, registry: Registry, holder: Version) -> Comparison | LostHolder:
        """Compare the places by query that both kept where both saw the same data; else score the holder again.

        Raises:
            ZeroVLError: the candidate's own reports or the validation data are missing or damaged; or the store
                or the disk fails for now, which says nothing about either model.
        """
        ours = self._candidate(read_json(self.workspace.evaluation_metrics))
        found = self._by_kept_ranks(registry, holder, ours)
        return found if isinstance(found, Comparison) else self._score_again(registry, holder, ours, found.why)

    def by_kept_ranks(self, registry: Registry, holder: Version, metrics: Mapping[str, Any]) -> Comparison | NotKept:
        """Compare places by query alone; `metrics` are the candidate's. Nothing is scored again."""
        return self._by_kept_ranks(registry, holder, self._candidate(metrics))

    def _candidate(self, metrics: Mapping[str, Any]) -> Measured:
        sets, items = classification_sets(self.workspace.evaluation_details), self.workspace.evaluation_items
        kept, lacks = None, "the candidate was evaluated before figures by item were kept"
        if items.is_file():
            try:
                kept, lacks = read_items(items), ""
            except NewerFormError as error:
                lacks = f"the candidate's figures by item were {error.why}"
        return Measured(metrics, read_queries(self.workspace.evaluation_queries), sets, kept, lacks)

    def _by_kept_ranks(self, registry: Registry, holder: Version, ours: Measured) -> Comparison | NotKept:
        queries = fetch_queries(registry, holder, ours.metrics)
        if isinstance(queries, str):
            return NotKept(queries)
        theirs = self._holder(registry, holder, queries)
        try:
            return self._compared(ours, theirs, "")
        except ZeroVLError as error:
            return NotKept(str(error))

    def _holder(self, registry: Registry, holder: Version, queries: pa.Table) -> Measured:
        """What is kept of a holder, whose places by query are on the candidate's data."""
        further = any(not name.startswith(f"{RETRIEVAL}.") for name in self.names)
        items = fetch_items(registry, holder) if further else None
        sets = holder.provenance.get("classification") or {}
        kept, lacks = (None, items) if isinstance(items, str) else (items, "")
        return Measured(holder.metrics, queries, sets, kept, lacks)

    def _score_again(self, registry: Registry, holder: Version, ours: Measured, why: str) -> Comparison | LostHolder:
        def lost(error: Exception) -> LostHolder:
            return LostHolder(
                f"holder {holder.reference} had to be scored again ({why}), but cannot be loaded: {error}; "
                "fix it, or move the alias by hand with `zerovl registry promote`"
            )

        with ExitStack() as stack:
            try:
                folder = stack.enter_context(cache.held(registry.store, holder))
            except DamagedError as error:
                return lost(error)
            gpus = own_gpus.count_up_to(self.machine.ranks)
            own_gpus.take(gpus, "register", self.machine.gpu_wait_minutes)
            try:
                encoder = Encoder.load(folder)
            except Exception as error:  # a holder of years ago may trip over anything in today's packages
                return lost(error)
            job = Job(self.settings, self.machine, self.workspace.root, self.project, folder)
            pool, ranked = job.rank(encoder)
        with tempfile.TemporaryDirectory() as folder_of_queries:  # through the file, for one order of images
            path = Path(folder_of_queries) / release_files.QUERIES
            write_queries(path, pool, ranked)
            theirs = self._holder(registry, holder, read_queries(path))
            return self._compared(ours, theirs, f"holder {holder.reference} re-scored: {why}")

    def _compared(self, ours: Measured, theirs: Measured, note: str) -> Comparison:
        """Compare source by source; raises `ZeroVLError` where they are not the same queries."""
        draws = self.settings.bootstrap, self.settings.seed
        found = difference(clusters_of(ours.queries), clusters_of(theirs.queries), *draws)
        pool = None
        if MEAN not in ours.metrics and MEAN not in theirs.metrics:
            pool = paired_difference(pool_clusters_of(ours.queries), pool_clusters_of(theirs.queries), *draws)
        named = differences(self.names, ours, theirs, self.settings)
        return Comparison(found.mean, found.sources, note, named=named, pool=pool)
