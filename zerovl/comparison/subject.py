"""Describe what is compared: a model, a run or a revision, with whatever is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from zerovl.evaluation.bootstrap import Clusters
from zerovl.evaluation.query_ranks import clusters_of
from zerovl.evaluation.report.curves import Curves


@dataclass(frozen=True)
class Subject:
    """One of those that are compared; what is not known of it is empty or None."""

    label: str  # as the user named it
    origin: str  # what it is, in a few words
    metrics: Mapping[str, Any] = field(default_factory=dict)  # the content of metrics.json
    queries: pa.Table | None = None  # ranks by query, in the order of `in_order`
    items: pa.Table | None = None  # what further metrics count of each item; None where it is not to be had
    newer_items: str = ""  # why they cannot be read, where a newer ZeroVL kept them
    sets: Mapping[str, Any] = field(default_factory=dict)  # what was asked of each classified set, with its digest
    params: Mapping[str, Any] = field(default_factory=dict)  # by dotted key, as `parameters.by_key` gives them
    curves: Curves = field(default_factory=lambda: Curves([], []))
    sample: Path | None = None  # pairs.tar of the validation pairs that it carries

    @cached_property
    def clusters(self) -> dict[str, Clusters]:
        """Return the headline's hits by source; empty without ranks by query."""
        return {} if self.queries is None else clusters_of(self.queries)

    @property
    def evaluation_digest(self) -> str | None:
        """Return the digest of what it was evaluated on; None where that is not known."""
        found = self.metrics.get("evaluation_digest")
        return str(found) if found else None


KEY = ("pool", "direction", "source", "image_id", "caption")  # what names a query, among columns of the queries


def in_order(queries: pa.Table) -> pa.Table:
    """Return queries in an order of their own, so that those of two models on the same data stand side by side."""
    return queries.sort_by([(name, "ascending") for name in KEY])


def same_data(first: Subject, second: Subject) -> str:
    """Return why two subjects were not evaluated on the same data; an empty text where they were."""
    if first.evaluation_digest is None or second.evaluation_digest is None:
        return "it is not known what data they were evaluated on"
    return "" if first.evaluation_digest == second.evaluation_digest else "they were evaluated on other data"


def same_queries(first: Subject, second: Subject) -> str:
    """Return why two subjects were not scored on the same queries; an empty text where they were."""
    for subject in (first, second):
        if not subject.metrics:
            return f"{subject.label} has no scores"
    if other_data := same_data(first, second):
        return other_data
    for subject in (first, second):
        if subject.queries is None:
            return f"{subject.label} has no ranks by query"
    if not first.queries.select(KEY).equals(second.queries.select(KEY)):  # type: ignore[union-attr]
        return "their tables of queries hold other queries"
    return ""
