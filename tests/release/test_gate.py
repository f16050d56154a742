from __future__ import annotations

import math
from typing import Any

import pytest

from zerovl.errors import ZeroVLError
from zerovl.params import GateParams
from zerovl.release.gate import Comparison, LostHolder, NoHolder, in_one_line, judge

FIRST = NoHolder("the alias has no holder yet")


def metrics(overall: float | None, /, **sources: float) -> dict[str, Any]:
    return {"overall": {"rsum": overall}, "sources": {name: {"rsum": value} for name, value in sources.items()}}


def against(
    overall: float, /, difference: float = 0.0, low: float = -1.0, high: float = 1.0, note: str = "", **sources: float
) -> Comparison:
    return Comparison(metrics(overall, **sources), difference, low, high, note)


@pytest.mark.parametrize(
    ("candidate", "holder", "failed_rules"),
    [
        (metrics(100.0), FIRST, []),
        (metrics(99.99), FIRST, ["min_rsum"]),
        (metrics(math.nan), FIRST, ["min_rsum"]),
        (metrics(300.0), against(305.0), []),
        (metrics(300.0), against(305.01), ["max_drop overall"]),
        (metrics(304.9, a=0.3), against(300.0, a=5.3), []),
        (metrics(300.0, a=200.0, b=100.0), against(300.0, a=206.0, b=90.0), ["max_drop a"]),
        (metrics(300.0, a=200.0), against(300.0, a=200.0, b=1.0), ["max_drop b"]),
        (metrics(300.0, a=200.0, new=0.0), against(300.0, a=200.0), []),
        (metrics(90.0, a=1.0), against(300.0, a=200.0), ["min_rsum", "max_drop overall", "max_drop a"]),
        (metrics(300.0, a=math.nan), against(300.0, a=200.0), ["max_drop a"]),
        (metrics(300.0, overall=1.0), against(300.0, overall=200.0), ["max_drop overall"]),  # a source of this name
        (metrics(500.0), LostHolder("holder zerovl@3 cannot be loaded"), ["max_drop"]),
    ],
)
def test_absolute_bounds_and_drops(
    candidate: dict[str, Any], holder: Comparison | LostHolder | NoHolder, failed_rules: list[str]
) -> None:
    verdict = judge(candidate, holder, GateParams(min_rsum=100.0, max_drop=5.0))
    assert [reason.rule for reason in verdict.reasons if not reason.passed] == failed_rules
    assert verdict.passed is (not failed_rules)
    assert verdict.to_json()["passed"] is verdict.passed


@pytest.mark.parametrize(
    ("rule", "low", "high", "passed"),
    [
        ("not_worse", -4.0, 2.0, True),
        ("not_worse", -4.0, 0.0, True),
        ("not_worse", -4.0, -0.1, False),
        ("not_worse", math.nan, math.nan, False),
        ("better", -0.1, 9.0, False),
        ("better", 0.0, 9.0, False),
        ("better", 0.1, 9.0, True),
        ("better", math.nan, math.nan, False),
        ("none", -9.0, -8.0, True),
    ],
)
def test_the_paired_difference(rule: Any, low: float, high: float, passed: bool) -> None:
    gate = GateParams(max_drop=100.0, difference=rule)
    verdict = judge(metrics(300.0), against(300.0, (low + high) / 2, low, high), gate)
    assert verdict.passed is passed
    told = [reason for reason in verdict.reasons if reason.rule == "difference"]
    assert len(told) == (rule != "none")
    assert judge(metrics(300.0), FIRST, gate).passed  # the first model has nothing to differ from


def test_bounds_of_single_sources() -> None:
    gate = GateParams(min_source_rsum={"a": 150.0, "b": 50, "gone": 1.0})
    verdict = judge(metrics(300.0, a=149.0, b=50.0), FIRST, gate)
    lines = [str(reason) for reason in verdict.reasons]
    assert "FAILED   min_source_rsum a: 149.00, bound 150.00" in lines
    assert "passed   min_source_rsum b: 50.00, bound 50.00" in lines
    assert any(
        line.startswith("FAILED   min_source_rsum gone (no such source in the evaluation, which has a, b; correct")
        for line in lines
    )


def test_what_is_not_compared_is_said() -> None:
    reason = judge(metrics(1.0), FIRST, GateParams()).reasons[-1]
    assert str(reason) == "skipped  max_drop (the alias has no holder yet)"
    lost = judge(metrics(1.0), LostHolder("holder zerovl@3 cannot be loaded: no weights"), GateParams()).reasons[-1]
    assert str(lost) == "FAILED   max_drop (holder zerovl@3 cannot be loaded: no weights)"
    again = judge(metrics(9.0), against(9.0, note="holder zerovl@3 re-scored: other data"), GateParams())
    assert "holder zerovl@3 re-scored: other data" in str(again.reasons[1])


def test_numbers_are_kept() -> None:
    holder = against(310.0, -10.0, -12.5, -7.0, a=201.0)
    verdict = judge(metrics(300.0, a=200.0), holder, GateParams(min_rsum=10.0, max_drop=5.0))
    nothing = {"note": "", "low": None, "high": None}
    assert verdict.to_json()["reasons"] == [
        {"rule": "min_rsum", "value": 300.0, "bound": 10.0, "passed": True, **nothing},
        {"rule": "max_drop overall", "value": 10.0, "bound": 5.0, "passed": False, **nothing},
        {"rule": "max_drop a", "value": 1.0, "bound": 5.0, "passed": True, **nothing},
        {
            "rule": "difference",
            "value": -10.0,
            "bound": 0.0,
            "passed": False,
            "note": "not_worse",
            "low": -12.5,
            "high": -7.0,
        },
    ]
    assert str(verdict.reasons[1]) == "FAILED   max_drop overall: 10.00, bound 5.00"
    assert str(verdict.reasons[3]) == "FAILED   difference: -10.00 [-12.50, -7.00], bound 0.00 (not_worse)"
    assert in_one_line(verdict.to_json()) == (
        "FAILED, max_drop overall: 10.00, bound 5.00; difference: -10.00 [-12.50, -7.00], bound 0.00"
    )
    passed = judge(metrics(300.0), FIRST, GateParams(min_rsum=10.0))
    assert in_one_line(passed.to_json()) == "passed, min_rsum: 300.00, bound 10.00"
    assert in_one_line(None) == "-"


@pytest.mark.parametrize("candidate", [{}, {"overall": {}}, {"overall": {"rsum": "high"}}, metrics(None)])
def test_metrics_without_a_score_are_an_error(candidate: dict[str, Any]) -> None:
    with pytest.raises(ZeroVLError, match=r"no overall.rsum"):
        judge(candidate, FIRST, GateParams())
