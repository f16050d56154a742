"""What makes two evaluations comparable: one digest of the data and the metric."""

from __future__ import annotations

from zerovl.data.manifest import Manifest
from zerovl.files import sha256_json

DIGEST = "evaluation_digest"  # in metrics.json
METRIC = "retrieval-1"  # change it when the same model and data would score otherwise


def evaluation_digest(manifest: Manifest) -> str:
    """Return a digest, equal when and only when scores of two models can be compared: same valid shards, same metric.

    Settings that move neither recalls nor RSUM (chunk, batch size, resamples, gallery) are left out.
    """
    splits = [
        [source, [shard.sha256 for shard in manifest.splits[source, "valid"].shards]]
        for source in manifest.sources("valid")
    ]
    return sha256_json([METRIC, splits])
