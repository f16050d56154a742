"""Named metrics: what an evaluator gives, how `metrics.json` holds it, and how readers find a value in it.

    {
      "overall": {"rsum": 93.0, "rsum_low": 84.3, "rsum_high": 103.2, ...},   retrieval, the one that always runs
      "sources": {SOURCE: {...}},
      "evaluation_digest": ..., "model_digest": ...,
      "evaluators": {NAME: {"overall": {...}, "sources": {SOURCE: {...}}}}    the others, where there are any
    }

A block is a mapping of names to numbers; the 95% interval of a metric stands beside it as `NAME_low` and `NAME_high`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

OVERALL = "overall"
RETRIEVAL = "retrieval"  # the evaluator whose blocks stand at the top of metrics.json
_DIGITS = 4  # after the point, in metrics.json


@dataclass(frozen=True)
class Score:
    """A metric's value with its 95% interval, where it has one; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


Block = Mapping[str, Score]  # by name of the metric


@dataclass(frozen=True)
class Table:
    """Metrics over all sources, and of each source alone."""

    overall: Block
    sources: Mapping[str, Block]

    def to_json(self) -> dict[str, Any]:
        """Return the two keys that `metrics.json` has for an evaluator."""
        sources = {source: _block_to_json(block) for source, block in self.sources.items()}
        return {OVERALL: _block_to_json(self.overall), "sources": sources}


@dataclass(frozen=True)
class Headline:
    """The one metric that stands for a model: in titles, in the gate's bounds, in lists of releases."""

    name: str  # in the blocks of retrieval
    label: str
    maximum: float

    @property
    def low(self) -> str:
        """Return the name of the lower end of its interval."""
        return f"{self.name}_low"

    @property
    def high(self) -> str:
        """Return the name of the upper end of its interval."""
        return f"{self.name}_high"

    @property
    def untrained(self) -> str:
        """Return the name of what the same architecture with random weights gets."""
        return f"untrained_{self.name}"

    @property
    def chance(self) -> str:
        """Return the name of what a random order gets."""
        return f"chance_{self.name}"

    @property
    def over_untrained(self) -> str:
        """Return the name of the ratio of the model to an untrained one."""
        return f"{self.name}_over_untrained"


HEADLINE = Headline("rsum", "RSUM", 600.0)


def metrics_json(tables: Mapping[str, Table], facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of `metrics.json`: retrieval at the top, then `facts`, then the other evaluators' tables."""
    others = {name: table.to_json() for name, table in tables.items() if name != RETRIEVAL}
    return {**tables[RETRIEVAL].to_json(), **facts, **({"evaluators": others} if others else {})}


def further_evaluators(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what the evaluators beside retrieval gave, by name; empty for releases of before there were any."""
    return dict(metrics.get("evaluators") or {})


def blocks(table: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the blocks of an evaluator as `metrics.json` has them: "all", then the sources by name."""
    return [("all", table.get(OVERALL, {})), *sorted(table.get("sources", {}).items())]


def metric_names(table: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics in an evaluator's blocks, without the ends of intervals, each once."""
    names = dict.fromkeys(name for _, block in blocks(table) for name in block)
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high")}
    return [name for name in names if name not in ends]


def find(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return the value of EVALUATOR.METRIC, or of EVALUATOR.METRIC@SOURCE; None where there is no such number."""
    metric, _, source = name.partition("@")
    evaluator, _, metric = metric.partition(".")
    table = metrics if evaluator == RETRIEVAL else further_evaluators(metrics).get(evaluator, {})
    return value_of(table.get("sources", {}).get(source) if source else table.get(OVERALL), metric)


def value_of(block: Any, name: str) -> float | None:
    """Return a metric of a block; None where there is no block, no such metric, or it is not a number."""
    value = block.get(name) if isinstance(block, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def known_names(metrics: Mapping[str, Any]) -> list[str]:
    """Return all names that `find` takes for a whole evaluation, without those of single sources."""
    tables = {RETRIEVAL: metrics, **further_evaluators(metrics)}
    return [f"{evaluator}.{name}" for evaluator, table in tables.items() for name in metric_names(table)]


def cell(block: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return a metric and its interval as text; empty texts for what the block does not have."""
    value, low, high = (_text(block.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    return value, f"{low} to {high}" if low and high else ""


def _text(value: Any) -> str:
    """A count whole, another number with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else ""


def _block_to_json(block: Block) -> dict[str, float | None]:
    return dict(_entries(block))


def _entries(block: Block) -> Iterator[tuple[str, float | None]]:
    """Names and rounded numbers, each interval behind its value."""
    for name, score in block.items():
        yield name, _rounded(score.value)
        if score.low is not None and score.high is not None:
            yield f"{name}_low", _rounded(score.low)
            yield f"{name}_high", _rounded(score.high)


def _rounded(value: float | None) -> float | None:
    return round(value, _DIGITS) if isinstance(value, float) else value
