"""Define what an evaluator is and what it works on.

An evaluator has a name and gives a table of named metrics. `evaluators.EVALUATORS` lists those in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.metrics import Table
from zerovl.evaluation.pool import Embeddings, Pool, encode
from zerovl.evaluation.scores import Scores, score
from zerovl.evaluation.validation_set import validation_batches
from zerovl.model.encoder import Encoder
from zerovl.params import EvaluateParams


@dataclass(frozen=True)
class Evaluation:
    """A model on the validation splits: the data, the embeddings of the model and of an untrained one, the rankings."""

    settings: EvaluateParams
    manifest: Manifest
    shards: ShardReader
    model: Encoder
    untrained: Encoder
    pool: Pool
    embeddings: Embeddings
    untrained_embeddings: Embeddings
    scores: dict[str, Scores]  # of retrieval, which report and release need query by query
    ranks: Ranks = ALONE  # who share it; each has the same data and embeddings

    @classmethod
    def run(
        cls,
        settings: EvaluateParams,
        manifest: Manifest,
        shards: ShardReader,
        model: Encoder,
        untrained: Encoder,
        ranks: Ranks = ALONE,
    ) -> Evaluation:
        """Embed the validation splits with both models, each picture read once, and rank them; a part of it a rank."""
        batches = validation_batches(manifest, shards, model, settings.batch_size, ranks)
        pool, (ours, baseline) = encode(batches, [model, untrained], settings.batch_size, ranks)
        scores = score(pool, ours, baseline, settings.chunk, settings.bootstrap, settings.seed, ranks)
        return cls(settings, manifest, shards, model, untrained, pool, ours, baseline, scores, ranks)


class Evaluator(Protocol):
    """Scores a model by metrics that have names."""

    @property
    def name(self) -> str:
        """Return the key in `metrics.json`, and the first part of its metrics' names in the gate."""
        ...

    def evaluate(self, evaluation: Evaluation) -> Table | None:
        """Return the metrics, over all sources and of each alone; None where the data lack what they need."""
        ...
