"""`zerovl score`: the retrieval metrics of embeddings."""

from __future__ import annotations

import json
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.evaluation import pairs_table
from zerovl.evaluation.bootstrap import Clusters, rsum_interval
from zerovl.evaluation.metrics import HEADLINE, RECALLS
from zerovl.evaluation.npz_files import read_npz
from zerovl.evaluation.retrieval import retrieval_metrics

ARRAYS = ("image_embeddings", "text_embeddings", "image_id")
_MADE_BY = "zerovl embed --pairs CSV --out FILE.npz"
_RESAMPLES, _SEED = 1000, 0  # of the interval, as the defaults of `evaluate` have them


def run(file: Path) -> None:
    """Print the retrieval metrics of embeddings as JSON, percent; rows as `embed` writes them.

    A file is one source, so its score is the mean over sources; the headline has its 95% interval and chance.
    """
    is_table, made_by = file.suffix == pairs_table.SUFFIX, f"zerovl embed --pairs CSV --out {file.name}"
    arrays = pairs_table.read_pairs_table(file, made_by) if is_table else read_npz(file, ARRAYS, _MADE_BY)
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
    print(json.dumps({name: result.metrics[name] for name in RECALLS} | headline))
