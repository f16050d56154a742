"""`zerovl score`: the retrieval metrics of embeddings."""

from __future__ import annotations

import json
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import Clusters, rsum_interval
from zerovl.evaluation.metrics import HEADLINE
from zerovl.evaluation.npz_files import read_npz
from zerovl.evaluation.retrieval import METRICS, retrieval_metrics

ARRAYS = ("image_embeddings", "text_embeddings", "image_id")
_RESAMPLES, _SEED = 1000, 0  # of the interval, as the defaults of `evaluate` have them


def run(file: Path) -> None:
    """Print the retrieval metrics of embeddings as JSON, percent; rows as `embed` writes them.

    A file is one source, so its score is the mean over sources; the headline has its 95% interval and chance.
    """
    arrays = read_npz(file, ARRAYS, "zerovl embed --pairs CSV --out FILE.npz")
    ids = arrays["image_id"]
    try:
        result = retrieval_metrics(arrays["image_embeddings"], arrays["text_embeddings"], ids, ids)
    except ZeroVLError as error:
        raise ZeroVLError(f"{file}: {error}") from None
    interval = rsum_interval(Clusters.of(result), _RESAMPLES, _SEED)
    headline = {
        HEADLINE.name: result.metrics[HEADLINE.name],
        HEADLINE.low: interval.low,
        HEADLINE.high: interval.high,
        HEADLINE.chance: result.chance[HEADLINE.name],
    }
    print(json.dumps({name: result.metrics[name] for name in METRICS} | headline))
