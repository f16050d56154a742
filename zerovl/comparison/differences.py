"""Put the scores of subjects side by side, each held against the first one.

Where both were scored on the same queries a difference has the 95% interval of the paired bootstrap
(`zerovl.evaluation.bootstrap`); else it is the bare difference of two numbers, and said to be unpaired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from zerovl.comparison.subject import Subject, same_queries
from zerovl.evaluation.metrics import (
    HEADLINE,
    MEAN,
    POOL,
    Interval,
    blocks,
    further_evaluators,
    metric_names,
    retrieval_blocks,
    value_of,
)
from zerovl.evaluation.paired import difference, mean_difference
from zerovl.evaluation.retrieval import METRICS
from zerovl.evaluation.scores import clusters_of


@dataclass(frozen=True)
class Change:
    """A subject's value minus that of the first; without an interval where there are no ranks by query to pair."""

    value: float
    interval: Interval | None = None
    lacking: str = "unpaired"  # what is said where there is no interval

    @property
    def sure(self) -> bool:
        """Tell whether the whole interval lies on one side of 0."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)

    def __str__(self) -> str:
        if self.interval is None:
            return f"{_signed(self.value)} {self.lacking}"
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

    @property
    def name(self) -> str:
        """Return what people read: "RSUM", "RSUM board", "i2t_r1"."""
        metric = HEADLINE.label if self.metric == HEADLINE.name else self.metric
        return metric if self.part == MEAN else f"{metric} {self.part}"


@dataclass(frozen=True)
class Scores:
    """All rows, and for each subject after the first why it is unpaired; an empty text where it is paired."""

    rows: tuple[Row, ...]
    unpaired: tuple[str, ...]


def compare(subjects: Sequence[Subject], resamples: int, seed: int) -> Scores:
    """Return the headline by part, the recalls of the mean, and the metrics of further evaluators."""
    unpaired = tuple(same_queries(subjects[0], other) for other in subjects[1:])
    intervals = [
        {} if why else _intervals(subjects[0], other, resamples, seed)
        for other, why in zip(subjects[1:], unpaired, strict=True)
    ]
    found = [_values(subject) for subject in subjects]
    rows = []
    for part, metric in _order(found):
        values = tuple(its.get((part, metric)) for its in found)
        changes = tuple(
            _change(values[0], value, its.get((part, metric)), _lacking(its, metric))
            for value, its in zip(values[1:], intervals, strict=True)
        )
        rows.append(Row(part, metric, values, changes))
    return Scores(tuple(rows), unpaired)


def _lacking(intervals: Mapping[tuple[str, str], Interval], metric: str) -> str:
    """Say why a difference has no interval; nothing here knows whether a further evaluator asked both the same."""
    return "no interval" if intervals and "." not in metric else "unpaired"


def _change(first: float | None, value: float | None, interval: Interval | None, lacking: str) -> Change | None:
    """The interval's own value is the exact one: numbers in reports are rounded."""
    if first is None or value is None:
        return None
    return Change(value - first if interval is None else interval.value, interval, lacking)


def _values(subject: Subject) -> dict[tuple[str, str], float | None]:
    """Values by part and metric; the mean of a release of before there was one comes from its ranks by query."""
    found: dict[tuple[str, str], float | None] = {}
    if not subject.metrics:
        return found
    unmarked = {**subject.metrics, "unseen": ()}
    parts: dict[str, Mapping[str, Any]] = dict(retrieval_blocks(unmarked))
    for part, block in parts.items():
        for metric in (HEADLINE.name, *METRICS) if part == MEAN else (HEADLINE.name,):
            found[part, metric] = value_of(block, metric)
    if MEAN not in parts and subject.queries is not None:
        for metric in (HEADLINE.name, *METRICS):
            found[MEAN, metric] = fmean(its.rsum() for its in clusters_of(subject.queries, metric).values())
    for evaluator, table in further_evaluators(subject.metrics).items():
        for metric in metric_names(table):
            found[MEAN, f"{evaluator}.{metric}"] = value_of(blocks(table)[0][1], metric)
    return found


def _order(found: Sequence[Mapping[tuple[str, str], object]]) -> list[tuple[str, str]]:
    """The headline first: mean, pool, sources; then all other metrics."""
    keys = dict.fromkeys(key for its in found for key in its)
    place = {MEAN: 0, POOL: 1}
    heads = sorted((key for key in keys if key[1] == HEADLINE.name), key=lambda key: (place.get(key[0], 2), key[0]))
    return heads + [key for key in keys if key[1] != HEADLINE.name]


def _intervals(first: Subject, other: Subject, resamples: int, seed: int) -> dict[tuple[str, str], Interval]:
    """Paired intervals of other - first: the headline by part, the recalls of the mean."""
    headline = difference(other.clusters, first.clusters, resamples, seed)
    found = {(source, HEADLINE.name): its for source, its in headline.sources.items()}
    found[MEAN, HEADLINE.name] = headline.mean
    for metric in METRICS:
        ours, theirs = (clusters_of(subject.queries, metric) for subject in (other, first))
        found[MEAN, metric] = mean_difference(ours, theirs, resamples, seed)
    return found
