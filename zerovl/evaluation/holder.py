"""Name who has an alias, its score, and how a candidate differs from it; for reports, the gate and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, MEAN, Interval, headline_block, value_of


@dataclass(frozen=True)
class Holder:
    """The release that had an alias when a candidate was held against it."""

    reference: str  # NAME@NUMBER
    alias: str  # NAME@ALIAS
    of: str  # what the score is of: mean, or pool for a release of before there was a mean
    score: float | None  # the headline; on the candidate's data where it was compared
    difference: Interval | None = None  # candidate - holder on the same queries
    why: str = ""  # why there is no difference

    @classmethod
    def released(cls, reference: str, alias: str, metrics: Mapping[str, Any]) -> Holder:
        """Return a release as the holder of an alias, with the score that it was released with."""
        of, block = headline_block(metrics)
        return cls(reference, alias, of, value_of(block, HEADLINE.name))

    def compared(self, candidate: Mapping[str, Any], difference: Interval) -> Holder:
        """Return it with candidate - holder; its score is then that on the candidate's queries, so the numbers fit.

        It keeps its own where the candidate has no mean over sources: then the difference is of what it is shown with.
        """
        of, block = headline_block(candidate)
        value = value_of(block, HEADLINE.name)
        if of != MEAN or value is None:
            return replace(self, difference=difference)
        return replace(self, of=of, score=value - difference.value, difference=difference)

    def __str__(self) -> str:
        score = f"{HEADLINE.label} {'-' if self.score is None else f'{self.score:.2f}'}"
        if self.of != MEAN:
            score += f" ({self.of})"
        if self.difference is None:
            return f"{self.reference}, {score}; not compared: {self.why}"
        its = self.difference
        return f"{self.reference}, {score}; this one {its.value:+.2f} [{its.low:+.2f}, {its.high:+.2f}]"

    def to_json(self) -> dict[str, Any]:
        """Return it as the verdict keeps it."""
        return asdict(self)


def holder_from(verdict: Mapping[str, Any] | None) -> Holder | None:
    """Return the holder that a verdict was passed against; None for a first release, and for verdicts of before."""
    values = (verdict or {}).get("holder")
    if not values:
        return None
    interval = values.get("difference")
    return Holder(**{**values, "difference": Interval(**interval) if interval else None})
