"""Compare single metrics of a candidate and the holder of an alias by name, for `register.gate.max_drops`.

RSUM and the recalls of retrieval are paired: both models' hits by query are drawn together, so the difference has an
interval. Other metrics are compared where both models were asked the same: the same set of pictures with classes by its
digest, else the same validation data. They are paired too where both kept what each picture counts; else there are two
numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from zerovl.evaluation.bootstrap import paired_difference
from zerovl.evaluation.comparable import DIGEST
from zerovl.evaluation.folds import Folds
from zerovl.evaluation.metrics import (
    HEADLINE,
    MEAN,
    POOL,
    RECALLS,
    RETRIEVAL,
    Score,
    Unpaired,
    find,
    further_evaluators,
)
from zerovl.evaluation.paired import mean_difference
from zerovl.evaluation.paired_items import NotPaired, paired_items, same_set
from zerovl.evaluation.query_ranks import clusters_of, pool_clusters_of
from zerovl.params import EvaluateParams


@dataclass(frozen=True)
class Measured:
    """What is kept of a model's evaluation."""

    metrics: Mapping[str, Any]  # metrics.json
    queries: pa.Table  # places by query, on the candidate's validation data
    sets: Mapping[str, Any]  # what was asked of each classified set, with its digest, by name
    items: pa.Table | None = None  # what further metrics count of each item; None where it is not to be had
    no_items: str = ""  # why it is not to be had


def differences(
    names: Collection[str], candidate: Measured, holder: Measured, settings: EvaluateParams
) -> dict[str, Score | str]:
    """Return candidate - holder of each metric by name, or why there is no such number."""
    return {name: _difference(name, candidate, holder, settings) for name in names}


def _difference(name: str, candidate: Measured, holder: Measured, settings: EvaluateParams) -> Score | str:
    evaluator, _, metric = name.partition("@")[0].partition(".")
    source = name.partition("@")[2]
    if evaluator == RETRIEVAL and metric in (HEADLINE.name, *RECALLS):
        return _paired(metric, source, candidate, holder, settings)
    ours, theirs = find(candidate.metrics, name), find(holder.metrics, name)
    if ours is None:
        return "the candidate has no such metric"
    if theirs is None:
        return "the holder was released without it; the next candidate is compared"
    if evaluator in candidate.sets:
        same = same_set(candidate.sets[evaluator], holder.sets.get(evaluator, {}))
        where = f"the set {evaluator} has other pictures, classes or templates now"
    elif evaluator == Folds.name and _fold_size(candidate) != _fold_size(holder):
        return "the holder was scored in folds of another size; the next candidate is compared"
    else:
        same = candidate.metrics.get(DIGEST) == holder.metrics.get(DIGEST)
        where = "the holder was measured on other validation data"
    if not same:
        return f"{where}; the next candidate is compared"
    if candidate.items is None or holder.items is None:
        why = candidate.no_items or holder.no_items
        return Unpaired(ours - theirs, why=why) if why else Score(ours - theirs)
    draws = settings.bootstrap, settings.seed
    table = further_evaluators(candidate.metrics).get(evaluator, {})
    if source == POOL and POOL not in table.get("sources", {}) and MEAN not in table:
        source = ""  # the block over all sources is the only one, by either name
    found = paired_items(candidate.items, holder.items, evaluator, metric, source, *draws)
    if not isinstance(found, NotPaired):
        return Score(found.value, found.low, found.high)
    # Numbers of other items say nothing about the models, whatever the digests say.
    return f"{found.why}; the next candidate is compared" if found.why else Score(ours - theirs)


def _fold_size(measured: Measured) -> float | None:
    return find(measured.metrics, f"{Folds.name}.pictures")


def _paired(metric: str, source: str, candidate: Measured, holder: Measured, settings: EvaluateParams) -> Score | str:
    ours, theirs = clusters_of(candidate.queries, metric), clusters_of(holder.queries, metric)
    draws = settings.bootstrap, settings.seed
    if not source:
        found = mean_difference(ours, theirs, *draws)
    elif source in ours:
        found = paired_difference(ours[source], theirs[source], *draws)
    elif source == POOL:
        our_pool, their_pool = (pool_clusters_of(its.queries, metric) for its in (candidate, holder))
        found = paired_difference(our_pool, their_pool, *draws)
    else:
        return f"the candidate was not evaluated on {source}"
    return Score(found.value, found.low, found.high)
