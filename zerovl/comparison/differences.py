"""Put the scores of subjects side by side, each held against the first one.

Where both were scored on the same queries, or asked of the same pictures, a difference has the 95% interval of the
paired bootstrap (`zerovl.evaluation.bootstrap`, `zerovl.evaluation.paired_items`); else it is the bare difference of
two numbers, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from zerovl.comparison.subject import Subject, same_data, same_queries
from zerovl.evaluation.bootstrap import paired_difference
from zerovl.evaluation.metrics import (
    HEADLINE,
    MEAN,
    POOL,
    RECALLS,
    Interval,
    blocks,
    further_evaluators,
    headline_block,
    metric_names,
    retrieval_blocks,
    value_of,
)
from zerovl.evaluation.paired import difference, mean_difference
from zerovl.evaluation.paired_items import NotPaired, keeps, paired_items, same_set
from zerovl.evaluation.query_ranks import clusters_of, pool_clusters_of
from zerovl.text_format import natural

Key = tuple[str, str]  # part and metric


@dataclass(frozen=True)
class Lacking:
    """There is no interval: what is said of it in a cell, and why, where that is to be told."""

    word: str
    why: str = ""


@dataclass(frozen=True)
class Change:
    """A subject's value minus that of the first; without an interval where there is nothing to pair."""

    value: float
    interval: Interval | None = None
    lacking: Lacking = Lacking("unpaired")

    @property
    def sure(self) -> bool:
        """Tell whether the whole interval lies on one side of 0."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)

    def __str__(self) -> str:
        if self.interval is None:
            return f"{_signed(self.value)} {self.lacking.word}"
        return f"{_signed(self.value)} [{_signed(self.interval.low)}, {_signed(self.interval.high)}]"


def _signed(value: float) -> str:
    """Two digits; what rounds to nothing is +0.00, whatever side it comes from."""
    return f"{round(value, 2) + 0.0:+.2f}"


@dataclass(frozen=True)
class Row:
    """A metric of a part ("mean", "pool" or a source) for each subject, and the changes of those after the first."""

    part: str
    metric: str
    values: tuple[float | None, ...]
    changes: tuple[Change | None, ...]  # one fewer than values
    is_measured: bool = True  # and no count, nor what chance or an untrained model gets

    @property
    def name(self) -> str:
        """Return what people read: "RSUM", "RSUM board", "i2t_r1"."""
        metric = HEADLINE.label if self.metric == HEADLINE.name else self.metric
        return metric if self.part == MEAN else f"{metric} {self.part}"


@dataclass(frozen=True)
class Scores:
    """All rows, and for each subject after the first why it is unpaired; an empty text where it is paired."""

    rows: tuple[Row, ...]
    unpaired: tuple[str, ...]  # of the queries of retrieval

    def lacking(self, place: int) -> list[str]:
        """Return why metrics of the subject of a place, from 1, have no interval: a sentence an evaluator."""
        changes = ((row, row.changes[place - 1]) for row in self.rows)
        return list(
            dict.fromkeys(
                f"{row.metric.partition('.')[0]}: {change.lacking.word}: {change.lacking.why}"
                for row, change in changes
                if change and change.interval is None and change.lacking.why
            )
        )


def compare(subjects: Sequence[Subject], resamples: int, seed: int) -> Scores:
    """Return the headline by part, the recalls of the mean, and the metrics of further evaluators."""
    first, *others = subjects
    unpaired = tuple(same_queries(first, other) for other in others)
    found = [_values(subject) for subject in subjects]
    intervals = []
    for other, why, its in zip(others, unpaired, found[1:], strict=True):
        both = [key for key, value in its.items() if value is not None and found[0].get(key) is not None]
        of_queries = {} if why else _of_queries(first, other, resamples, seed)
        intervals.append({**of_queries, **_of_items(first, other, both, resamples, seed)})
    rows = []
    alone = _only_source(subjects)
    counted = {name for subject in subjects for name in _counted(subject)}
    for key in _order(found):
        if key == (alone, HEADLINE.name):
            continue
        values = tuple(its.get(key) for its in found)
        changes = (_change(values[0], value, its.get(key)) for value, its in zip(values[1:], intervals, strict=True))
        rows.append(Row(*key, values, tuple(changes), key[1] not in counted))
    return Scores(tuple(rows), unpaired)


def _change(first: float | None, value: float | None, found: Interval | Lacking | None) -> Change | None:
    """The interval's own value is the exact one: numbers in reports are rounded."""
    if first is None or value is None:
        return None
    if isinstance(found, Interval):
        return Change(found.value, found)
    return Change(value - first) if found is None else Change(value - first, lacking=found)


def _values(subject: Subject) -> dict[Key, float | None]:
    """Values by part and metric; the mean of a release of before there was one comes from its ranks by query."""
    found: dict[Key, float | None] = {}
    if not subject.metrics:
        return found
    unmarked = {**subject.metrics, "unseen": ()}
    # A source may be called as the mean is; the row of that name is the mean's.
    parts: dict[str, Mapping[str, Any]] = dict([*retrieval_blocks(unmarked), headline_block(unmarked)])
    for part, block in parts.items():
        for metric in (HEADLINE.name, *RECALLS) if part == MEAN else (HEADLINE.name,):
            found[part, metric] = value_of(block, metric)
    if MEAN not in parts and subject.queries is not None:
        for metric in (HEADLINE.name, *RECALLS):
            found[MEAN, metric] = fmean(its.rsum() for its in clusters_of(subject.queries, metric).values())
    for evaluator, table in further_evaluators(subject.metrics).items():
        (_, overall), *sources = blocks(table)
        for metric in sorted(metric_names(table), key=lambda name: (f"{name}_low" not in overall, natural(name))):
            found[MEAN, f"{evaluator}.{metric}"] = value_of(overall, metric)
        for source, block in sources if len(sources) > 1 else ():
            for metric in metric_names(table) if source != MEAN else ():
                if f"{metric}_low" in block:  # the others of a source would be many, and few look at them
                    found[source, f"{evaluator}.{metric}"] = value_of(block, metric)
    return found


def _counted(subject: Subject) -> Iterator[str]:
    """Give the further evaluators' metrics that are counts, or baselines: no model is measured by them."""
    for evaluator, table in further_evaluators(subject.metrics).items() if subject.metrics else ():
        for metric in metric_names(table):
            whole = all(isinstance(block.get(metric, 0), int) for _, block in blocks(table))
            if whole or metric.startswith(("chance_", "untrained_")):
                yield f"{evaluator}.{metric}"


def _only_source(subjects: Sequence[Subject]) -> str | None:
    """The source that all subjects have and no other, which the mean is equal to; None where there are several."""
    of_each = [set(subject.metrics.get("sources", {})) for subject in subjects if subject.metrics]
    sources: set[str] = set().union(*of_each)
    means = all(MEAN in subject.metrics for subject in subjects if subject.metrics)
    return sources.pop() if len(sources) == 1 and means else None


def _order(found: Sequence[Mapping[Key, object]]) -> list[Key]:
    """The headline first: mean, pool, sources; then all other metrics."""
    keys = dict.fromkeys(key for its in found for key in its)
    place = {MEAN: 0, POOL: 1}
    heads = sorted((key for key in keys if key[1] == HEADLINE.name), key=lambda key: (place.get(key[0], 2), key[0]))
    return heads + [key for key in keys if key[1] != HEADLINE.name]


def _of_queries(first: Subject, other: Subject, resamples: int, seed: int) -> dict[Key, Interval]:
    """Paired intervals of other - first in retrieval: the headline by part, the recalls of the mean."""
    headline = difference(other.clusters, first.clusters, resamples, seed)
    found = {(source, HEADLINE.name): its for source, its in headline.sources.items()}
    found[MEAN, HEADLINE.name] = headline.mean
    our_pool, their_pool = (pool_clusters_of(subject.queries) for subject in (other, first))
    # A source of that name has its row.
    found.setdefault((POOL, HEADLINE.name), paired_difference(our_pool, their_pool, resamples, seed))
    for metric in RECALLS:
        ours, theirs = (clusters_of(subject.queries, metric) for subject in (other, first))
        found[MEAN, metric] = mean_difference(ours, theirs, resamples, seed)
    return found


def _of_items(
    first: Subject, other: Subject, keys: Iterable[Key], resamples: int, seed: int
) -> dict[Key, Interval | Lacking]:
    """Paired intervals of other - first in further evaluators, or why there are none."""
    found: dict[Key, Interval | Lacking] = {}
    for part, name in keys:
        evaluator, dot, metric = name.partition(".")
        if not dot:
            continue
        if lacking := _not_comparable(first, other, evaluator):
            found[part, name] = lacking
            continue
        source = "" if part == MEAN else part
        its = paired_items(other.items, first.items, evaluator, metric, source, resamples, seed)
        found[part, name] = Lacking(its.word, its.why) if isinstance(its, NotPaired) else its
    return found


def _not_comparable(first: Subject, other: Subject, evaluator: str) -> Lacking | None:
    """Why an evaluator's metrics cannot be paired; None where it asked both of the same and both kept what it found."""
    without = [subject for subject in (first, other) if subject.items is None]
    asked = [subject.sets.get(evaluator, {}) for subject in (first, other)]
    if any(asked):
        known = all("digest" in its for its in asked)  # not of releases of before sets had one
        if not same_set(*asked) and (known or not without):
            return Lacking("unpaired", "the set has other pictures, classes or templates")
    elif other_data := same_data(first, other):
        return Lacking("unpaired", other_data)
    if newer := [f"{its.label}: its figures by item were {its.newer_items}" for its in without if its.newer_items]:
        return Lacking("no interval", "; ".join(newer))
    if without:
        before = " and ".join(subject.label for subject in without)
        return Lacking("no interval", f"made before figures by item were kept: {before}")
    silent = [subject.label for subject in (first, other) if not keeps(subject.items, evaluator)]
    return Lacking("no interval", f"it kept no figures by item of {' and '.join(silent)}") if silent else None
