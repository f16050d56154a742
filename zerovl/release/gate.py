"""Judge whether a candidate may take the alias: metrics in, verdict with its numbers out.

Metrics are those of `reports/evaluation/metrics.json` (see `evaluation.metrics`). Bounds and comparison are of the
headline metric; `min_metrics` sets a bound for any other that an evaluator gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from zerovl.errors import ZeroVLError
from zerovl.evaluation.metrics import HEADLINE, find, known_names, value_of

if TYPE_CHECKING:
    from zerovl.params import GateParams
    from zerovl.registry.records import Version
    from zerovl.registry.registry import Registry

_ROUNDING = 1e-9  # of sums of recalls


@dataclass(frozen=True)
class Comparison:
    """The holder of the alias on the candidate's queries; differences are candidate - holder, over all sources."""

    holder: Mapping[str, Any]  # metrics
    difference: float
    low: float  # of the 95% interval of the paired difference
    high: float
    note: str = ""  # where the holder had to be measured again, and why


@dataclass(frozen=True)
class NoHolder:
    """There is nothing to compare with: the absolute bounds decide."""

    why: str


@dataclass(frozen=True)
class LostHolder:
    """There is a holder, but it cannot be measured any more: the candidate does not pass."""

    why: str


class Compare(Protocol):
    """Measures the holder of an alias against the candidate in the workspace."""

    def __call__(self, registry: Registry, holder: Version) -> Comparison | LostHolder:
        """Return how the two compare, or why the holder cannot be measured any more."""
        ...


@dataclass(frozen=True)
class Reason:
    """One rule with what it saw; `value` and `bound` are None where there was nothing to compare."""

    rule: str
    value: float | None
    bound: float | None
    passed: bool
    note: str = ""
    low: float | None = None  # the value's 95% interval, where it has one
    high: float | None = None

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        state = "FAILED" if not self.passed else "passed" if self.numbers else "skipped"
        return f"{state:<7}  {self.rule}{self.numbers}{note}"

    @property
    def numbers(self) -> str:
        """Return value, interval and bound as text; empty where nothing was compared."""
        if self.value is None or self.bound is None:
            return ""
        interval = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f": {self.value:.2f}{interval}, bound {self.bound:.2f}"


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate may take the alias, and by which rules."""

    passed: bool
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as `release.json` and the registry keep it."""
        return {"passed": self.passed, "reasons": [asdict(reason) for reason in self.reasons]}


def judge(candidate: Mapping[str, Any], holder: Comparison | LostHolder | NoHolder, gate: GateParams) -> Verdict:
    """Hold a candidate's metrics against absolute bounds, and against the holder on the same queries.

    Raises:
        ZeroVLError: the candidate's metrics lack a score that a rule needs.
    """
    score = _score(candidate.get("overall"))
    if score is None:
        raise ZeroVLError(f"the candidate's metrics have no overall.{HEADLINE.name}; run `dvc repro evaluate` again")
    reasons = (
        _reaches("min_rsum", score, gate.min_rsum),
        *(_source_reaches(candidate, source, bound) for source, bound in sorted(gate.min_source_rsum.items())),
        *(_metric_reaches(candidate, name, bound) for name, bound in sorted(gate.min_metrics.items())),
        *_against(candidate, holder, gate),
    )
    return Verdict(all(reason.passed for reason in reasons), reasons)


def in_one_line(verdict: Mapping[str, Any] | None) -> str:
    """Return a verdict as its JSON has it in a line: what failed, else the scores that the candidate passed with."""
    if verdict is None:
        return "-"
    reasons = [Reason(**reason) for reason in verdict["reasons"]]
    told = [reason for reason in reasons if reason.rule in ("min_rsum", "difference")]
    if not verdict["passed"]:
        told = [reason for reason in reasons if not reason.passed]
    words = "; ".join(reason.rule + (reason.numbers or f" ({reason.note})") for reason in told)
    return ("passed, " if verdict["passed"] else "FAILED, ") + words


def _against(
    candidate: Mapping[str, Any], holder: Comparison | LostHolder | NoHolder, gate: GateParams
) -> Iterator[Reason]:
    if not isinstance(holder, Comparison):
        yield Reason("max_drop", None, gate.max_drop, isinstance(holder, NoHolder), holder.why)
        return
    before, after = _score(holder.holder.get("overall")), _score(candidate.get("overall"))
    yield _drop("max_drop overall", before, after, gate.max_drop, holder.note)
    for source, scores in sorted(holder.holder.get("sources", {}).items()):
        after = _score(candidate.get("sources", {}).get(source))
        yield _drop(f"max_drop {source}", _score(scores), after, gate.max_drop)
    if gate.difference != "none":
        passed = holder.high >= 0 if gate.difference == "not_worse" else holder.low > 0  # NaN fails
        yield Reason("difference", holder.difference, 0.0, passed, gate.difference, holder.low, holder.high)


def _reaches(rule: str, value: float, bound: float) -> Reason:
    return Reason(rule, value, bound, value >= bound - _ROUNDING)  # NaN fails


def _source_reaches(candidate: Mapping[str, Any], source: str, bound: float) -> Reason:
    sources = candidate.get("sources", {})
    rule, value = f"min_source_rsum {source}", _score(sources.get(source))
    if value is None:
        known = ", ".join(sorted(sources)) or "none"
        note = f"no such source in the evaluation, which has {known}; correct register.gate.min_source_rsum"
        return Reason(rule, None, bound, False, note)
    return _reaches(rule, value, bound)


def _metric_reaches(candidate: Mapping[str, Any], name: str, bound: float) -> Reason:
    rule, value = f"min_metrics {name}", find(candidate, name)
    if value is None:
        known = ", ".join(known_names(candidate))
        note = f"no such metric in the evaluation, which has {known}; correct register.gate.min_metrics"
        return Reason(rule, None, bound, False, note)
    return _reaches(rule, value, bound)


def _drop(rule: str, before: float | None, after: float | None, bound: float, note: str = "") -> Reason:
    if before is None:
        return Reason(rule, None, bound, True, "the holder has no score here")
    if after is None:
        return Reason(rule, None, bound, False, f"the holder has {before:.2f}, the candidate no score")
    return Reason(rule, before - after, bound, before - after <= bound + _ROUNDING, note)


def _score(block: Any) -> float | None:
    return value_of(block, HEADLINE.name)
