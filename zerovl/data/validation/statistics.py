"""What the validation remembers of the manifest: a few numbers a shard and exact distributions."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zerovl.data.broken_inputs import Kinds
from zerovl.data.filtering.left_out import LeftOut
from zerovl.data.filtering.left_out_tables import Tallies

EXAMPLES = 5

Integers = npt.NDArray[np.int64]
Example = dict[str, str]


def example(key: str | None, origin: str | None, detail: str) -> Example:
    """Return one row as messages, page and verdict name it."""
    return {"key": key or "", "origin": origin or "", "detail": detail}


class Histogram:
    """Counts integers exactly: a distribution of values of few distinct ones."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, values: Integers) -> None:
        """Count values, any number of them."""
        distinct, counts = np.unique(values, return_counts=True)
        for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            self.counts[value] += count

    def sorted(self) -> tuple[Integers, Integers]:
        """Return the distinct values, ascending, and their counts."""
        values = np.array(sorted(self.counts), np.int64)
        return values, np.array([self.counts[value] for value in values.tolist()], np.int64)

    def quantile(self, share: float) -> int | None:
        """Return the smallest value that at least `share` of all do not exceed; None of nothing."""
        values, counts = self.sorted()
        if not len(values):
            return None
        total = np.cumsum(counts)
        return int(values[np.searchsorted(total, share * total[-1] - 1e-9)])

    def mean(self) -> float | None:
        """Return the mean of all values; None of nothing."""
        values, counts = self.sorted()
        return float(values @ counts / counts.sum()) if len(values) else None

    def summary(self) -> dict[str, Any]:
        """Return what the verdict keeps of the distribution."""
        return {"mean": self.mean(), "p5": self.quantile(0.05), "p50": self.quantile(0.5), "p95": self.quantile(0.95)}


@dataclass
class Equals:
    """Captions and pictures of training pairs that another pair of the same source has, and the pairs of such."""

    captions: int
    caption_pairs: int  # unordered; letter case and spaces do not count
    pictures: int
    picture_pairs: int


@dataclass
class SplitStatistics:
    """Exact counts and distributions of one split of one source."""

    pairs: int = 0
    captions: int = 0
    broken: int = 0
    bytes: int = 0
    words: Histogram = field(default_factory=Histogram)
    width: Histogram = field(default_factory=Histogram)
    height: Histogram = field(default_factory=Histogram)
    equals: Equals | None = None  # in training

    def summary(self) -> dict[str, Any]:
        """Return what the verdict keeps of the split."""
        return {
            "pairs": self.pairs,
            "captions": self.captions,
            "broken": self.broken,
            "words": self.words.summary(),
            "width": self.width.summary(),
            "height": self.height.summary(),
            "bytes": {"total": self.bytes, "mean": self.bytes / self.pairs if self.pairs else None},
            **({"equals": asdict(self.equals)} if self.equals else {}),
        }


@dataclass
class RuleFindings:
    """What breaks one rule: how often, how far, and the first examples."""

    count: int = 0
    extreme: float | None = None  # the smallest or largest value of all rows, good ones included
    examples: list[Example] = field(default_factory=list)


@dataclass
class ShardStatistics:
    """Exact aggregates of one shard."""

    source: str
    split: str
    pairs: int = 0
    nulls: int = 0
    words_min: float = np.inf
    words_max: float = -np.inf
    side_min: float = np.inf
    aspect_max: float = -np.inf


@dataclass
class Scan:
    """Everything that one pass over the manifest has counted."""

    rows: int = 0
    splits: dict[tuple[str, str], SplitStatistics] = field(default_factory=dict)
    shards: dict[str, ShardStatistics] = field(default_factory=dict)
    findings: dict[str, RuleFindings] = field(default_factory=dict)  # by rule name
    reasons: dict[str, RuleFindings] = field(default_factory=dict)  # by kind of reason for a quarantine
    kinds: Kinds = field(default_factory=Kinds)
    sample: pa.Table | None = None
    models_asked: dict[str, dict[str, str]] = field(default_factory=dict)  # filter -> its model, and the digest
    drawn_valid: dict[str, int] = field(default_factory=dict)  # source -> pictures of the valid split drawn for it
    left_out: Tallies = field(default_factory=dict)  # by the filters of `prepare`
    left_out_examples: dict[tuple[str, str], dict[str, list[LeftOut]]] = field(default_factory=dict)  # by split, reason
    valid_hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    valid_places: list[Integers] = field(default_factory=list)

    def note(self, rule: str) -> RuleFindings:
        """Return what has been found for a rule so far, to be added to."""
        return self.findings.setdefault(rule, RuleFindings())
