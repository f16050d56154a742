"""Read the validation splits in batches for a model."""

from __future__ import annotations

from collections.abc import Iterator

from zerovl import cores
from zerovl.data.batches.evaluation import EvaluationBatch, evaluation_batches
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.sharing import own
from zerovl.model.encoder import Encoder

MAX_WORKERS = 8


def validation_batches(
    manifest: Manifest, shards: ShardReader, model: Encoder, batch_size: int, ranks: Ranks = ALONE
) -> dict[str, tuple[int, Iterator[EvaluationBatch]]]:
    """Return what `pool.encode` takes: by source the number of pictures, and batches with `model`'s preprocessing.

    Of several ranks each has its own batches (`sharing.own`).
    """
    return {
        source: (manifest.pairs(source, "valid"), _batches(manifest, shards, source, model, batch_size, ranks, number))
        for number, source in enumerate(manifest.sources("valid"))
    }


def _batches(
    manifest: Manifest, shards: ShardReader, source: str, model: Encoder, batch_size: int, ranks: Ranks, number: int
) -> Iterator[EvaluationBatch]:
    """Give a split's batches; its worker processes start when the first one is asked for."""
    # On a CPU the encoder itself is what all cores are busy with.
    workers = 0 if model.device.type == "cpu" else min(MAX_WORKERS, max(1, cores.core_count() // ranks.world_size))
    share, transform = own(ranks, number), model.transform
    with evaluation_batches(manifest, shards, source, "valid", transform, batch_size, workers, share) as batches:
        yield from batches
