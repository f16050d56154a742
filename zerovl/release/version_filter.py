"""Which versions `zerovl registry list` shows: those whose metrics fulfil conditions, and that have tags."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.evaluation.metrics import RETRIEVAL, find, further_evaluators, known_names
from zerovl.registry.notes import State
from zerovl.registry.records import Version

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "=": operator.eq,
}
_CONDITION = re.compile(r"\s*([^<>=\s]+)\s*(>=|<=|>|<|==?)\s*([^<>=\s]+)\s*")


@dataclass(frozen=True)
class Condition:
    """A bound of a metric, as in "rsum>500" or "retrieval.t2i_r1@photos>=30"."""

    metric: str  # as `metrics.find` takes it
    symbol: str
    bound: float

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the metric in an evaluation; None where it has none of that name."""
        return find(metrics, self.metric)

    def holds(self, metrics: Mapping[str, Any]) -> bool:
        """Whether an evaluation has the metric, and it keeps the bound."""
        value = self.value(metrics)
        return value is not None and _OPERATORS[self.symbol](value, self.bound)


@dataclass(frozen=True)
class VersionFilter:
    """All conditions must hold, and all tags be there."""

    conditions: tuple[Condition, ...] = ()
    tags: tuple[str, ...] = ()

    def __call__(self, version: Version, state: State) -> bool:
        """Whether a version is to be shown."""
        held = all(condition.holds(version.metrics) for condition in self.conditions)
        return held and set(self.tags) <= set(state.tags)

    def check(self, versions: Iterable[Version]) -> None:
        """Raise `ZeroVLError` for a metric that no version has: it is spelt otherwise, or nobody computes it."""
        metrics = [version.metrics for version in versions]
        for condition in self.conditions:
            if metrics and all(condition.value(each) is None for each in metrics):
                raise ZeroVLError(f"--where {condition.metric}: {_no_such_metric(condition.metric, metrics)}")


def parse(wheres: Sequence[str], tags: Sequence[str]) -> VersionFilter:
    """Return the filter of `--where METRIC>NUMBER` and `--tag NAME`, each as often as one likes.

    A metric without its evaluator is retrieval's.

    Raises:
        ZeroVLError: a condition is not METRIC, one of > >= < <= =, NUMBER.
    """
    return VersionFilter(tuple(_condition(text) for text in wheres), tuple(tags))


def _no_such_metric(name: str, metrics: Sequence[Mapping[str, Any]]) -> str:
    """What no version has, and what they have: names of metrics, or of the metric's sources where these differ."""
    metric, of_source, source = name.partition("@")
    sources = sorted({source for of_one in metrics for source in _sources_of(of_one, metric)})
    if of_source and sources:
        return f"no version has this metric of {source}; they have it of {', '.join(sources)}"
    known = ", ".join(dict.fromkeys(name for each in metrics for name in known_names(each))) or "none"
    return f"no version has such a metric; they have {known}"


def _condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    try:
        metric, symbol, bound = found.groups() if found else ("", "", "")
        number = float(bound)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ZeroVLError(f"--where {text!r}: expected METRIC, one of > >= < <= =, and a number, as in 'rsum>500'")
    name, at, source = metric.partition("@")
    if "." not in name:  # retrieval's, whose names are small; `list` writes the headline large
        name = f"{RETRIEVAL}.{name.lower()}"
    return Condition(f"{name}{at}{source}", symbol, number)


def _sources_of(metrics: Mapping[str, Any], name: str) -> list[str]:
    """The sources that EVALUATOR.METRIC has a value of."""
    evaluator = name.partition(".")[0]
    table = metrics if evaluator == RETRIEVAL else further_evaluators(metrics).get(evaluator, {})
    return [source for source in table.get("sources", {}) if find(metrics, f"{name}@{source}") is not None]
