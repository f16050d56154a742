"""Score retrieval in a pool, a source at a time and over all, and keep the figures by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.bootstrap import Clusters, mean_interval, rsum_interval
from zerovl.evaluation.metrics import HEADLINE, KS, OVERALL, RECALLS, Block, Interval, Score, Table
from zerovl.evaluation.pool import Embeddings, Ints, Pool
from zerovl.evaluation.query_ranks import QUERIES_SCHEMA, pool_of
from zerovl.evaluation.ranking import Ranking
from zerovl.evaluation.retrieval import RetrievalResult, retrieval_metrics, take_rows
from zerovl.files import atomic_write

AnyRanked = TypeVar("AnyRanked", bound="Ranked")


@dataclass(frozen=True)
class Ranked:
    """A pool of candidates and its ranking by a model."""

    images: Ints  # rows of the pool's images that were searched, (I',)
    captions: Ints  # rows of the pool's captions that were searched, (M',)
    result: RetrievalResult


@dataclass(frozen=True)
class Scores(Ranked):
    """A ranking, and what to hold it against."""

    interval: Interval
    untrained_rsum: float

    def block(self) -> Block:
        """Return the metrics by name: what was searched, recalls and RSUM in percent, what RSUM is held against."""
        result = self.result
        rsum = result.rsum
        ratio = rsum / self.untrained_rsum if self.untrained_rsum else None  # none where that finds nothing at all
        return {
            "images": Score(len(result.image_ids)),
            "captions": Score(len(self.captions)),
            **{name: Score(result.metrics[name]) for name in RECALLS},
            HEADLINE.name: Score(rsum, self.interval.low, self.interval.high),
            HEADLINE.untrained: Score(self.untrained_rsum),
            HEADLINE.chance: Score(result.chance[HEADLINE.name]),
            HEADLINE.over_untrained: Score(ratio),
        }


def mean_block(sources: Sequence[Scores], resamples: int, seed: int) -> Block:
    """Return the mean over sources of each metric; pictures and captions are counted over all of them."""
    found = [its.block() for its in sources]
    interval = mean_interval([Clusters.of(its.result) for its in sources], resamples, seed)

    def mean(name: str) -> float:
        return fmean(block[name].value or 0.0 for block in found)

    untrained = mean(HEADLINE.untrained)
    return {
        "images": Score(sum(len(its.result.image_ids) for its in sources)),
        "captions": Score(sum(len(its.captions) for its in sources)),
        **{name: Score(mean(name)) for name in RECALLS},
        HEADLINE.name: Score(interval.value, interval.low, interval.high),
        HEADLINE.untrained: Score(untrained),
        HEADLINE.chance: Score(mean(HEADLINE.chance)),
        HEADLINE.over_untrained: Score(interval.value / untrained if untrained else None),
    }


def rank(pool: Pool, embeddings: Embeddings, chunk: int, ranks: Ranks = ALONE) -> dict[str, Ranked]:
    """Rank over all sources (`OVERALL`), then by source; with one source, which both are, once."""
    pools = {OVERALL: (np.arange(len(pool.keys)), np.arange(len(pool.captions)))}
    pools |= {pool_of(source): (pool.images_of(source), pool.captions_of(source)) for source in pool.sources}
    ranked: dict[str, Ranked] = {}
    for name, (images, captions) in pools.items():
        if ranked and len(pool.sources) == 1:
            ranked[name] = ranked[OVERALL]
            continue
        ids = pool.group[images], pool.group[pool.caption_image[captions]]
        values = take_rows(embeddings.image, images), take_rows(embeddings.text, captions)
        ranked[name] = Ranked(images, captions, retrieval_metrics(*values, *ids, chunk=chunk, ranks=ranks))
    return ranked


def score(
    pool: Pool,
    trained: Embeddings,
    untrained: Embeddings,
    chunk: int,
    resamples: int,
    seed: int,
    ranks: Ranks = ALONE,
) -> dict[str, Scores]:
    """Score over all sources (`OVERALL`), then by source; every rank gives the same."""
    baseline = {name: its.result.rsum for name, its in rank(pool, untrained, chunk, ranks).items()}
    scores = {}
    for name, its in rank(pool, trained, chunk, ranks).items():
        interval = rsum_interval(Clusters.of(its.result), resamples, seed)
        scores[name] = Scores(its.images, its.captions, its.result, interval, baseline[name])
    return scores


def by_source(pool: Pool, scores: Mapping[str, AnyRanked]) -> dict[str, AnyRanked]:
    """Return the scores of each source alone."""
    return {source: scores[pool_of(source)] for source in pool.sources}


def table(pool: Pool, scores: Mapping[str, Scores], resamples: int, seed: int) -> Table:
    """Return the named metrics of retrieval: the pool's, each source's, and their mean with its interval."""
    its_scores = by_source(pool, scores)
    sources = {source: its.block() for source, its in its_scores.items()}
    return Table(scores[OVERALL].block(), sources, mean_block(list(its_scores.values()), resamples, seed))


def write_queries(path: Path, pool: Pool, scores: Mapping[str, Ranked]) -> None:
    """Write places by query, for paired comparisons with another model on the same queries."""
    tables = []
    for name, its in scores.items():
        pictures = its.images[its.result.image_rows]
        tables.append(_query_table(name, "i2t", pool, pictures, None, its.result.i2t))
        owners = pool.caption_image[its.captions]
        numbers = its.captions - np.searchsorted(pool.caption_image, owners)
        tables.append(_query_table(name, "t2i", pool, owners, numbers, its.result.t2i))
    with atomic_write(path) as file:
        pq.write_table(pa.concat_tables(tables), file)


def _query_table(
    name: str, direction: str, pool: Pool, images: Ints, captions: Ints | None, ranking: Ranking
) -> pa.Table:
    count = len(images)
    sources = np.array(pool.sources, dtype=object)
    columns = [
        [name] * count,
        [direction] * count,
        sources[pool.image_source[images]],
        pool.image_id[images],
        pa.nulls(count, pa.int32()) if captions is None else captions.astype(np.int32),
        ranking.expected_place,
        *(ranking.hits(k) for k in KS),
    ]
    return pa.table(dict(zip(QUERIES_SCHEMA.names, columns, strict=True)), schema=QUERIES_SCHEMA)
