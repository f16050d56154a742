"""All metrics of a release as tables for a terminal: a column for the mean, the pool and each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zerovl.evaluation.metrics import (
    HEADLINE,
    blocks,
    cell,
    further_evaluators,
    metric_names,
    retrieval_blocks,
)
from zerovl.text_format import natural, table


def of(metrics: Mapping[str, Any]) -> str:
    """Return every metric by name, a row each: retrieval's, the headline first, then those of further evaluators.

    The names are sorted as people count: the store's records have them in the order of their letters.
    """
    names = sorted(metric_names(metrics), key=natural)
    first = [HEADLINE.name] if HEADLINE.name in names else []
    names = [*first, *(name for name in names if name not in first)]
    tables = [_table("SCORES", retrieval_blocks(metrics), names)]
    for evaluator, its in further_evaluators(metrics).items():
        tables.append(_table(evaluator, blocks(its), sorted(metric_names(its), key=natural)))
    return "\n\n".join(tables)


def _table(title: str, parts: Sequence[tuple[str, Mapping[str, Any]]], names: Sequence[str]) -> str:
    """A column for each part: the mean, the pool, the sources."""
    rows = [(title, *(part for part, _ in parts))]
    rows += [(name, *(_with_interval(block, name) for _, block in parts)) for name in names]
    return table(rows)


def _with_interval(block: Mapping[str, Any], name: str) -> str:
    value, interval = cell(block, name)
    return f"{value} [{interval}]" if interval else value or "-"
