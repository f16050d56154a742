"""Score a small fixed sample of the validation pairs while training: the score curve.

Shapes: `n` pairs of the sample, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import fmean

import numpy as np
import torch

from zerovl.data.manifest import Manifest
from zerovl.data.split_reader import ANY_PIXELS
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.engine.precision import Precision
from zerovl.engine.sharding import is_sharded
from zerovl.engine.trainer import PeriodicEvaluation
from zerovl.evaluation.bootstrap import Clusters, mean_interval
from zerovl.evaluation.metrics import HEADLINE, POOL
from zerovl.evaluation.pool import Facts
from zerovl.evaluation.retrieval import retrieval_metrics
from zerovl.evaluation.sharing import facts_of_all, own
from zerovl.images import decode_rgb
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.preprocess import EvaluationTransform
from zerovl.training import valid_folds
from zerovl.training.passes import PASS, Passes, Towers
from zerovl.training.run_spec import Run
from zerovl.training.valid_sets import read_checks

_RESAMPLES = 200  # of the curve's interval

# Columns of the log: the mean over sources with its 95% interval, what chance gets, all sources searched as one, and
# folds, where all pairs of their sources are in the sample.
COLUMN = f"valid_{HEADLINE.name}"
LOW, HIGH = f"{COLUMN}_low", f"{COLUMN}_high"
CHANCE, IN_POOL = f"valid_{HEADLINE.chance}", f"valid_{POOL}_{HEADLINE.name}"
IN_FOLDS = valid_folds.COLUMN
SCORES = (COLUMN, LOW, HIGH, CHANCE, IN_POOL, IN_FOLDS)


def make_periodic_evaluation(run: Run, model: DualEncoder) -> PeriodicEvaluation | None:
    """Return what scores the sample, None where `train.valid_checks` is 0 or no source has a validation split.

    A collective, as is each score: pictures are read and embedded by rank.
    """
    params, tokenizer, ranks = run.params, run.spec.tokenizer, run.ranks.on_host()
    if not params.train.valid_checks or not run.spec.manifest.sources("valid"):
        return None
    sample = _Sample.of(run, ranks)
    folds = valid_folds.read_check(params, run.spec.manifest, sample.facts, tokenizer, ranks)
    checks = read_checks(params, tokenizer, ranks)
    # Between passes the watchdog is told: scoring many pairs is progress too.
    alive = partial(run.ranks.activity.mark, "scoring validation pairs")
    sharded = is_sharded(model)
    lowered = sharded and params.machine.shard_gathers == "low"  # then there are no float32 weights to score with
    precision = Precision(params.train.precision if lowered else "float32", run.ranks.device)
    towers = Towers(model, ranks, sharded, alive, precision)

    @torch.no_grad()  # inference mode would leave a sharded tower with weights that no backward accepts
    def score() -> dict[str, float]:
        with torch.compiler.set_stance("force_eager"):  # to compile for these shapes takes longer than to score
            images, texts = towers.images(sample.pictures), towers.captions(sample.captions)
            found = scores(images, texts, sample.counts, ranks)
            if folds:
                found |= folds.score(images, towers)
            for check in checks:
                found |= check.score(towers)
        return found

    return PeriodicEvaluation(params.train.valid_checks, score)


@dataclass(frozen=True)
class _Sample:
    """Pairs evenly spread over the sources' validation splits, source after source: a picture, its first caption."""

    counts: tuple[int, ...]  # pairs of each source
    pictures: Passes  # n of them
    captions: Passes  # n of them
    facts: Mapping[str, Sequence[Facts]]  # by source its image ids, keys and all captions, as `pool.pool_of` takes them

    @classmethod
    def of(cls, run: Run, ranks: Ranks) -> _Sample:
        """Read the pairs of this rank's passes, and hear of the others' captions."""
        params, manifest = run.params, run.spec.manifest
        sources = manifest.sources("valid")
        wanted = max(1, params.train.valid_pairs // len(sources))
        places = [_spread(manifest, source, wanted) for source in sources]
        chosen = [place for its in places for place in its]
        passes = [chosen[start : start + PASS] for start in range(0, len(chosen), PASS)]
        reader = run.shards.direct_reader()
        read = [[reader.read(*place) for place in its] for its in passes[own(ranks)]]
        said: list[list[Facts]] = [[[its.image_id, its.key, its.captions] for its in samples] for samples in read]
        facts = [fact for its in facts_of_all(said, ranks) for fact in its]
        rest = iter(facts)
        transform = EvaluationTransform.of(params.model)
        pixels = [torch.stack([transform(decode_rgb(its.image, ANY_PIXELS)) for its in samples]) for samples in read]
        return cls(
            tuple(map(len, places)),
            Passes.of_pixels([len(its) for its in passes], pixels, params.model.image_size),
            Passes.of_captions([captions[0] for _, _, captions in facts], run.spec.tokenizer, ranks),
            {
                source: [[list(column) for column in zip(*islice(rest, len(its)), strict=True)]]
                for source, its in zip(sources, places, strict=True)
            },
        )


def _spread(manifest: Manifest, source: str, wanted: int) -> list[tuple[str, int, int]]:
    """Return where the samples of a source lie that are scored: file, offset and size."""
    index = manifest.index(source, "valid")
    rows = np.unique(np.linspace(0, len(index) - 1, min(wanted, len(index))).astype(int))
    files = manifest.splits[source, "valid"].shards
    return [(files[its["shard"]].path, int(its["offset"]), int(its["size"])) for its in index[rows]]


def scores(
    image_emb: torch.Tensor, text_emb: torch.Tensor, counts: Sequence[int], ranks: Ranks = ALONE
) -> dict[str, float]:
    """Return the columns of the log for embeddings (n, D) of n pairs; `counts` says how many each source has.

    Ranks share the ranking, and all give the same.
    """
    ids = np.arange(len(image_emb))
    parts = zip(image_emb.split(list(counts)), text_emb.split(list(counts)), strict=True)
    found = [
        retrieval_metrics(images, texts, ids[: len(images)], ids[: len(images)], ranks=ranks) for images, texts in parts
    ]
    mean = mean_interval([Clusters.of(its) for its in found], _RESAMPLES, seed=0)
    return {
        COLUMN: mean.value,
        LOW: mean.low,
        HIGH: mean.high,
        CHANCE: fmean(its.chance[HEADLINE.name] for its in found),
        IN_POOL: retrieval_metrics(image_emb, text_emb, ids, ids, ranks=ranks).rsum,
    }
