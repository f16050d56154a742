"""Read the validation splits in batches for a model, and say what makes two evaluations comparable."""

from __future__ import annotations

from collections.abc import Iterator

from zerovl import cores
from zerovl.data.batches.evaluation import EvaluationBatch, evaluation_batches
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.sharing import own
from zerovl.files import sha256_json
from zerovl.model.encoder import Encoder

METRIC = "retrieval-1"  # change it when the same model and data would score otherwise
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


def evaluation_digest(manifest: Manifest) -> str:
    """Return a digest, equal when and only when scores of two models can be compared: same valid shards, same metric.

    Settings that move neither recalls nor RSUM (chunk, batch size, resamples, gallery) are left out.
    """
    splits = [
        [source, [shard.sha256 for shard in manifest.splits[source, "valid"].shards]]
        for source in manifest.sources("valid")
    ]
    return sha256_json([METRIC, splits])
