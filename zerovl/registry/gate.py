"""The gate: may this candidate take the alias? Metrics in, verdict with its numbers out.

Metrics are those of `reports/evaluation/metrics.json`:
`{"overall": {"rsum": ...}, "sources": {NAME: {"rsum": ...}}, "evaluation_digest": ...}`, RSUM in [0, 600].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zerovl.errors import ZeroVLError

if TYPE_CHECKING:
    from zerovl.params import GateParams

_ROUNDING = 1e-9  # of sums of recalls


@dataclass(frozen=True)
class Reason:
    """One rule with what it saw; `value` and `bound` are None where there was nothing to compare."""

    rule: str
    value: float | None
    bound: float | None
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        numbers = "" if self.value is None or self.bound is None else f": {self.value:.2f}, bound {self.bound:.2f}"
        note = f" ({self.note})" if self.note else ""
        state = "FAILED" if not self.passed else "passed" if numbers else "skipped"
        return f"{state:<7}  {self.rule}{numbers}{note}"


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "reasons": [asdict(reason) for reason in self.reasons]}


def judge(candidate: Mapping[str, Any], holder: Mapping[str, Any] | None, gate: GateParams) -> Verdict:
    """Hold a candidate's metrics against absolute bounds and, on equal evaluation data, against the holder's.

    Raises:
        ZeroVLError: the candidate's metrics lack a score that a rule needs.
    """
    rsum = _rsum(candidate, "overall")
    if rsum is None:
        raise ZeroVLError("the candidate's metrics have no overall.rsum; run `dvc repro evaluate` again")
    reasons = [
        Reason("min_rsum", rsum, gate.min_rsum, rsum >= gate.min_rsum - _ROUNDING),  # NaN fails
        *_drops(candidate, holder, gate.max_drop),
    ]
    return Verdict(all(reason.passed for reason in reasons), tuple(reasons))


def _drops(candidate: Mapping[str, Any], holder: Mapping[str, Any] | None, bound: float) -> list[Reason]:
    if holder is None:
        return [Reason("max_drop", None, bound, True, "the alias has no holder yet")]
    digest = candidate.get("evaluation_digest")
    if digest is None or digest != holder.get("evaluation_digest"):
        return [Reason("max_drop", None, bound, True, "not comparable: evaluation data differ")]
    return [_drop(candidate, holder, part, bound) for part in ("overall", *sorted(holder.get("sources", {})))]


def _drop(candidate: Mapping[str, Any], holder: Mapping[str, Any], part: str, bound: float) -> Reason:
    rule = f"max_drop {part}"
    before, after = _rsum(holder, part), _rsum(candidate, part)
    if before is None:
        return Reason(rule, None, bound, True, "the holder has no score here")
    if after is None:
        return Reason(rule, None, bound, False, f"the holder has {before:.2f}, the candidate no score")
    return Reason(rule, before - after, bound, before - after <= bound + _ROUNDING)


def _rsum(metrics: Mapping[str, Any], part: str) -> float | None:
    """`part` is "overall" or the name of a source."""
    scores = metrics.get("overall") if part == "overall" else metrics.get("sources", {}).get(part)
    value = scores.get("rsum") if isinstance(scores, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
