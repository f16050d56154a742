"""Judge whether a candidate may take the alias: metrics in, verdict with its numbers out.

Metrics are those of `reports/evaluation/metrics.json` (see `evaluation.metrics`). Bounds and comparison are of the
headline, the mean over sources of RSUM; `min_metrics` sets a bound for any other that an evaluator gives, `max_drops`
one for what it loses against the holder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import Holder
from zerovl.evaluation.metrics import (
    HEADLINE,
    MEAN,
    Interval,
    Score,
    Unpaired,
    block_of,
    find,
    headline_block,
    known_names,
    more_than_chance,
    value_of,
)

if TYPE_CHECKING:
    from zerovl.params import GateParams
    from zerovl.registry.records import Version
    from zerovl.registry.registry import Registry

ABOVE_CHANCE = "above_chance"  # the default of `min_rsum`
_ROUNDING = 1e-9  # of sums of recalls


@dataclass(frozen=True)
class Comparison:
    """Candidate - holder on the same queries, each with the 95% interval of the paired difference."""

    mean: Interval  # over sources
    sources: Mapping[str, Interval]
    note: str = ""  # where the holder had to be measured again, and why
    holder: Holder | None = None  # who it is, with its score as released
    # Of the metrics of `max_drops`, by name; the interval where it is paired, or why there is no difference.
    named: Mapping[str, Score | str] = field(default_factory=dict)
    pool: Interval | None = None  # of all sources searched as one, where that is the headline of both

    @property
    def headline(self) -> Interval:
        """Return the difference of what both models are shown with."""
        return self.mean if self.pool is None else self.pool


@dataclass(frozen=True)
class NoHolder:
    """There is nothing to compare with: the absolute bounds decide."""

    why: str


@dataclass(frozen=True)
class LostHolder:
    """There is a holder, but it cannot be measured any more: the candidate does not pass."""

    why: str
    holder: Holder | None = None  # who it is, with its score as released


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
    def is_gain(self) -> bool:
        """Tell whether a rule against drops saw the opposite: its `value` is a drop, below 0 then."""
        return self.rule.startswith("max_drop") and self.value is not None and self.value < 0

    @property
    def numbers(self) -> str:
        """Return value, interval and bound as text; empty where nothing was compared."""
        if self.value is None or self.bound is None:
            return ""
        if self.is_gain:
            interval = "" if self.low is None or self.high is None else f" [{-self.high:.2f}, {-self.low:.2f}]"
            return f": a gain of {-self.value:.2f}{interval}, bound {self.bound:.2f}"
        # A drop is a difference with its sign turned: that of equal models is -0.0, and adding 0 takes the sign away.
        interval = "" if self.low is None or self.high is None else f" [{self.low + 0:.2f}, {self.high + 0:.2f}]"
        return f": {self.value + 0:.2f}{interval}, bound {self.bound:.2f}"


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate may take the alias, and by which rules."""

    passed: bool
    reasons: tuple[Reason, ...]
    holder: Holder | None = None  # that the candidate was held against

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as `release.json` and the registry keep it."""
        holder = {"holder": self.holder.to_json()} if self.holder else {}
        return {"passed": self.passed, "reasons": [asdict(reason) for reason in self.reasons], **holder}


def judge(candidate: Mapping[str, Any], holder: Comparison | LostHolder | NoHolder, gate: GateParams) -> Verdict:
    """Hold a candidate's metrics against absolute bounds, and against the holder on the same queries.

    Raises:
        ZeroVLError: the candidate's metrics lack a score that a rule needs.
    """
    reasons = (
        _learned(candidate) if gate.min_rsum == "above_chance" else _headline_reaches(candidate, gate.min_rsum),
        *(_source_reaches(candidate, source, bound) for source, bound in sorted(gate.min_source_rsum.items())),
        *(_metric_reaches(candidate, name, bound) for name, bound in sorted(gate.min_metrics.items())),
        *_against(holder, gate),
        *(_named_drop(candidate, holder, name, bound) for name, bound in sorted(gate.max_drops.items())),
    )
    return Verdict(all(reason.passed for reason in reasons), reasons, _held_against(candidate, holder))


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


def _held_against(candidate: Mapping[str, Any], holder: Comparison | LostHolder | NoHolder) -> Holder | None:
    """The holder, with the difference where it was measured."""
    if isinstance(holder, NoHolder) or holder.holder is None:
        return None
    if isinstance(holder, LostHolder):
        return replace(holder.holder, why="it cannot be measured any more")
    return holder.holder.compared(candidate, holder.headline)


def _against(holder: Comparison | LostHolder | NoHolder, gate: GateParams) -> Iterator[Reason]:
    if not isinstance(holder, Comparison):
        yield Reason("max_drop", None, gate.max_drop, isinstance(holder, NoHolder), holder.why)
        return
    sources = sorted(holder.sources.items())
    alone = list(holder.sources.values()) == [holder.mean]  # one source is its own mean: one rule, by its name
    (first, difference), *others = sources if alone else [(MEAN, holder.mean), *sources]
    yield _drop(f"max_drop {first}", difference, gate.max_drop, holder.note)
    for source, difference in others:
        yield _drop(f"max_drop {source}", difference, gate.max_drop)
    if gate.difference != "none":
        mean = holder.mean
        passed = mean.high >= 0 if gate.difference == "not_worse" else mean.low > 0  # NaN fails
        yield Reason("difference", mean.value, 0.0, passed, gate.difference, mean.low, mean.high)


def _named_drop(
    candidate: Mapping[str, Any], holder: Comparison | LostHolder | NoHolder, name: str, bound: float
) -> Reason:
    """Hold a metric against the holder's; what cannot be compared is no reason to refuse, and says so."""
    rule = f"max_drops {name}"
    if find(candidate, name) is None:
        return _unknown_metric(rule, candidate, "max_drops")
    if not isinstance(holder, Comparison):
        return Reason(rule, None, bound, isinstance(holder, NoHolder), holder.why)
    found = holder.named.get(name, "it was not compared")
    if isinstance(found, str):
        return Reason(rule, None, bound, True, found)
    value = math.nan if found.value is None else found.value
    if found.low is not None and found.high is not None:
        return _drop(rule, Interval(value, found.low, found.high), bound)
    why = f": {found.why}" if isinstance(found, Unpaired) else ""
    return Reason(rule, -value, bound, -value <= bound + _ROUNDING, f"two numbers, without a paired interval{why}")


def _unknown_metric(rule: str, candidate: Mapping[str, Any], key: str) -> Reason:
    known = ", ".join(known_names(candidate))
    note = f"no such metric in the evaluation, which has {known}; correct register.gate.{key}"
    return Reason(rule, None, None, False, note)


def _learned(candidate: Mapping[str, Any]) -> Reason:
    """Ask for an interval that lies above chance: a model that learned nothing does not get there."""
    value, low, high, chance = (
        _headline(candidate, name) for name in (HEADLINE.name, HEADLINE.low, HEADLINE.high, HEADLINE.chance)
    )
    bound = more_than_chance(chance)
    passed = low > bound  # NaN fails
    note = f"{ABOVE_CHANCE}: the lower end counts, chance is {chance:.2f}"
    if not passed:
        note = (
            f"hardly more than chance, which is {chance:.2f}: the lower end of the interval must lie above the bound. "
            "Train longer, on more pairs or from pretrained towers (`zerovl recipe auto` suggests settings); where the "
            "validation splits have few pictures, give them more. A number as register.gate.min_rsum is a bound of "
            "your own"
        )
    return Reason("min_rsum", value, bound, passed, note, low, high)


def _headline_reaches(candidate: Mapping[str, Any], bound: float) -> Reason:
    _headline(candidate, HEADLINE.name)  # raises where there is none
    return _reaches("min_rsum", headline_block(candidate)[1], HEADLINE.name, bound)


def _headline(candidate: Mapping[str, Any], name: str) -> float:
    of, block = headline_block(candidate)
    value = value_of(block, name)
    if value is None:
        raise ZeroVLError(f"the candidate's metrics have no {name} in their {of}; run `dvc repro -f evaluate`")
    return value


def _reaches(rule: str, block: Mapping[str, Any], name: str, bound: float) -> Reason:
    """Hold a metric that a block has against its bound; its interval is told, where it has one."""
    value, low, high = (value_of(block, each) for each in (name, f"{name}_low", f"{name}_high"))
    value = math.nan if value is None else value
    note = "" if low is None or high is None else "the value counts, not its interval"
    return Reason(rule, value, bound, value >= bound - _ROUNDING, note, low, high)  # NaN fails


def _source_reaches(candidate: Mapping[str, Any], source: str, bound: float) -> Reason:
    sources = candidate.get("sources", {})
    rule = f"min_source_rsum {source}"
    if value_of(sources.get(source), HEADLINE.name) is None:
        known = ", ".join(sorted(sources)) or "none"
        note = f"no such source in the evaluation, which has {known}; correct register.gate.min_source_rsum"
        return Reason(rule, None, bound, False, note)
    return _reaches(rule, sources[source], HEADLINE.name, bound)


def _metric_reaches(candidate: Mapping[str, Any], name: str, bound: float) -> Reason:
    rule, (block, metric) = f"min_metrics {name}", block_of(candidate, name)
    if value_of(block, metric) is None:
        return _unknown_metric(rule, candidate, "min_metrics")
    return _reaches(rule, block, metric, bound)


def _drop(rule: str, difference: Interval, bound: float, note: str = "") -> Reason:
    """Refuse a drop that is above the bound and surely one: its whole interval lies above 0. NaN fails."""
    drop, low, high = -difference.value, -difference.high, -difference.low
    small, unsure = drop <= bound + _ROUNDING, low <= 0
    if unsure and not small:
        note = "; ".join(filter(None, (note, "above the bound, but its interval reaches 0: it may be chance")))
    return Reason(rule, drop, bound, small or unsure, note, low, high)
