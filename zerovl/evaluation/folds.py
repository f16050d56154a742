"""Score retrieval in folds, as COCO's is reported: the mean of five folds of 1,000 pictures, beside the 5,000 at once.

A fold is so many consecutive pictures of a source with all their captions, and is searched alone: "1K test" is the mean
of the folds' figures. Pictures behind the last whole fold are left out. Source: Faghri and others,
https://arxiv.org/abs/1707.05612, whose `evaluation.py` (github.com/fartashf/vsepp) takes consecutive thousands.

{"rsum": 512.3, "rsum_low": ..., "rsum_high": ..., "i2t_r1": ..., "untrained_rsum": ..., "chance_rsum": ...,
 "pictures": 1000, "folds": 5, "left_out": 0}

Shapes: `I` images of a fold, `F` folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.bootstrap import Clusters, percentile_interval, weights_of_draws
from zerovl.evaluation.figures import Figures
from zerovl.evaluation.fold_ranking import folds_of, rank_fold
from zerovl.evaluation.metrics import HEADLINE, KS, RECALLS, Block, Interval, Score, Table
from zerovl.evaluation.pool import Ints
from zerovl.evaluation.retrieval import RetrievalResult
from zerovl.log import logger


@dataclass(frozen=True)
class FoldScores:
    """The rankings of a source's folds, and what to hold them against."""

    pictures: int  # of a fold
    left_out: int  # pictures behind the last whole fold
    results: tuple[RetrievalResult, ...]  # (F,)
    image_ids: tuple[Ints, ...]  # (F,) of each one's distinct pictures, as their source numbers them
    untrained_rsum: float

    def block(self, interval: Interval) -> Block:
        """Return the means over folds by name, recalls and RSUM in percent."""
        of_folds = [its.metrics for its in self.results]
        return {
            HEADLINE.name: Score(interval.value, interval.low, interval.high),
            **{name: Score(fmean(its[name] for its in of_folds)) for name in RECALLS},
            HEADLINE.untrained: Score(self.untrained_rsum),
            HEADLINE.chance: Score(fmean(its.chance[HEADLINE.name] for its in self.results)),
            "pictures": Score(self.pictures),
            "folds": Score(len(self.results)),
            "left_out": Score(self.left_out),
        }

    def figures(self, source: str) -> Iterator[Figures]:
        """Give what recalls and RSUM count of each picture and of its captions; the pictures of a fold are a draw."""
        for fold, (result, ids) in enumerate(zip(self.results, self.image_ids, strict=True)):
            names, owners = [str(image_id) for image_id in ids], result.caption_image
            made = partial(Figures, items=names, source=source, draw=fold)
            captions = np.bincount(owners).astype(np.float64)  # (I',)
            of_images = {f"i2t_r{k}": result.i2t.hits(k) for k in KS}
            of_captions = {f"t2i_r{k}": np.bincount(owners, result.t2i.hits(k)).astype(np.float64) for k in KS}
            yield from (made(name, hits=hits) for name, hits in of_images.items())
            yield from (made(name, hits=hits, of=captions) for name, hits in of_captions.items())
            yield made(HEADLINE.name, hits=np.sum(list(of_images.values()), axis=0))
            yield made(HEADLINE.name, hits=np.sum(list(of_captions.values()), axis=0), of=captions, part=1)


class Folds:
    """Finds captions for pictures and pictures for captions within folds of `evaluate.folds` pictures."""

    name = "folds"

    def evaluate(self, evaluation: Evaluation) -> Table | None:
        """Return the means over folds of each source that has one; None where there are none, or none are asked for.

        Over all sources it is the mean of theirs: a fold never has pictures of two.
        """
        settings, pool = evaluation.settings, evaluation.pool
        if not settings.folds:
            return None
        found = {
            source: scored
            for source in pool.sources
            if (scored := _scored(evaluation, source, settings.folds, settings.chunk))
        }
        if not found:
            if evaluation.ranks.is_first:
                logger().warning(
                    f"evaluate.folds: {settings.folds}: no source has so many validation pictures, so there are no "
                    "folds; set it to at most the largest source's, or to 0"
                )
            return None
        blocks = {
            source: its.block(mean_interval([its.results], settings.bootstrap, settings.seed))
            for source, its in found.items()
        }
        overall = mean_interval([its.results for its in found.values()], settings.bootstrap, settings.seed)
        figures = [figures for source, its in found.items() for figures in its.figures(source)]
        return Table(_mean_block(list(found.values()), blocks, overall), blocks, figures=figures)


def mean_interval(sources: Sequence[Sequence[RetrievalResult]], resamples: int, seed: int) -> Interval:
    """Compute RSUM with its 95% interval, the mean over sources of the means over folds.

    The pictures of each fold are drawn within it (`zerovl.evaluation.bootstrap`).
    """
    clusters = [Clusters.of(result) for results in sources for result in results]
    shares = [1.0 / (len(sources) * len(results)) for results in sources for _ in results]
    draws = [
        sum(share * its.rsum(weights) for share, its, weights in zip(shares, clusters, drawn, strict=True))
        for drawn in weights_of_draws([len(its.captions) for its in clusters], resamples, seed)
    ]
    return percentile_interval(sum(share * its.rsum() for share, its in zip(shares, clusters, strict=True)), draws)


def _scored(evaluation: Evaluation, source: str, pictures: int, chunk: int) -> FoldScores | None:
    pool = evaluation.pool
    folds = folds_of(pool, source, pictures)
    if not folds:
        return None
    results = tuple(rank_fold(pool, evaluation.embeddings, fold, chunk, evaluation.ranks) for fold in folds)
    untrained = fmean(
        rank_fold(pool, evaluation.untrained_embeddings, fold, chunk, evaluation.ranks).rsum for fold in folds
    )
    ids = tuple(pool.image_id[fold.images[its.image_rows]] for fold, its in zip(folds, results, strict=True))
    left_out = len(np.unique(pool.group[pool.images_of(source)])) - pictures * len(folds)
    return FoldScores(pictures, left_out, results, ids, untrained)


def _mean_block(scores: Sequence[FoldScores], blocks: dict[str, Block], interval: Interval) -> Block:
    """The means over sources; folds, and pictures that are left out, are counted over all of them."""
    means = {name: fmean(block[name].value or 0.0 for block in blocks.values()) for name in scores[0].block(interval)}
    return {
        **{name: Score(value) for name, value in means.items()},
        HEADLINE.name: Score(interval.value, interval.low, interval.high),
        "pictures": Score(scores[0].pictures),
        "folds": Score(sum(len(its.results) for its in scores)),
        "left_out": Score(sum(its.left_out for its in scores)),
    }
