"""Compare for the gate: the holder of the alias on the queries of the candidate in the workspace."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import Clusters
from zerovl.evaluation.paired import difference
from zerovl.evaluation.pool import encode
from zerovl.evaluation.scores import rank, read_clusters, write_queries
from zerovl.evaluation.validation_set import validation_batches
from zerovl.files import read_json
from zerovl.model.encoder import Encoder
from zerovl.params import EvaluateParams
from zerovl.registry import cache, release_files, transfer
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.transfer import DamagedError
from zerovl.release.gate import Comparison, LostHolder
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

    def __call__(self, registry: Registry, holder: Version) -> Comparison | LostHolder:
        """Compare the places by query that both kept where both saw the same data; else score the holder again.

        Raises:
            ZeroVLError: the candidate's own reports or the validation data are missing or damaged; or the store
                or the disk fails for now, which says nothing about either model.
        """
        ours = read_clusters(self.workspace.evaluation_queries)
        found = self.by_kept_ranks(registry, holder, ours, read_json(self.workspace.evaluation_metrics))
        return found if isinstance(found, Comparison) else self._score_again(registry, holder, ours, found.why)

    def by_kept_ranks(
        self, registry: Registry, holder: Version, ours: dict[str, Clusters], metrics: Mapping[str, Any]
    ) -> Comparison | NotKept:
        """Compare places by query alone; `ours` and `metrics` are the candidate's. Nothing is scored again."""
        digest = metrics.get("evaluation_digest")
        if digest is None or digest != holder.metrics.get("evaluation_digest"):
            return NotKept("its evaluation was of other data")
        if release_files.QUERIES not in holder.files:
            return NotKept("it was released without its ranks by query")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / release_files.QUERIES
            try:
                transfer.fetch_file(registry.store, holder, release_files.QUERIES, path)
            except DamagedError as error:
                return NotKept(str(error))
            try:
                return self._compared(ours, read_clusters(path), "")
            except ZeroVLError as error:
                return NotKept(str(error))

    def _score_again(
        self, registry: Registry, holder: Version, ours: dict[str, Clusters], why: str
    ) -> Comparison | LostHolder:
        manifest, shards = Manifest.load(self.workspace.manifest), ShardReader(self.workspace.shards)

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
            try:
                encoder = Encoder.load(folder)
            except Exception as error:  # a holder of years ago may trip over anything in today's packages
                return lost(error)
        batches = validation_batches(manifest, shards, encoder, self.settings.batch_size)
        pool, (embeddings,) = encode(batches, [encoder], self.settings.batch_size)
        ranked = rank(pool, embeddings, self.settings.chunk)
        with tempfile.TemporaryDirectory() as folder_of_queries:  # through the file, for one order of images
            path = Path(folder_of_queries) / release_files.QUERIES
            write_queries(path, pool, ranked)
            theirs = read_clusters(path)
        return self._compared(ours, theirs, f"holder {holder.reference} re-scored: {why}")

    def _compared(self, ours: dict[str, Clusters], theirs: dict[str, Clusters], note: str) -> Comparison:
        """Compare source by source; raises `ZeroVLError` where they are not the same queries."""
        found = difference(ours, theirs, self.settings.bootstrap, self.settings.seed)
        return Comparison(found.mean, found.sources, note)
