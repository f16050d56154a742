from __future__ import annotations

import json
import math
from typing import Any

import pytest

from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import Holder, holder_from
from zerovl.evaluation.metrics import Interval, more_than_chance
from zerovl.params import GateParams
from zerovl.release.gate import Comparison, LostHolder, NoHolder, in_one_line, judge

FIRST = NoHolder("the alias has no holder yet")


def metrics(mean: float | None, /, spread: float = 5.0, chance: float = 16.0, **sources: float) -> dict[str, Any]:
    block = {"rsum": mean, "chance_rsum": chance}
    if mean is not None:
        block |= {"rsum_low": mean - spread, "rsum_high": mean + spread}
    return {"mean": block, "overall": {"rsum": 1.0}, "sources": {name: {"rsum": its} for name, its in sources.items()}}


def around(value: float, spread: float = 1.0) -> Interval:
    return Interval(value, value - spread, value + spread)


def against(mean: Interval, note: str = "", /, **sources: Interval) -> Comparison:
    return Comparison(mean, sources, note)


@pytest.mark.parametrize(
    ("candidate", "holder", "failed_rules"),
    [
        (metrics(100.0), FIRST, []),
        (metrics(99.99), FIRST, ["min_rsum"]),
        (metrics(math.nan), FIRST, ["min_rsum"]),
        (metrics(300.0), against(around(-5.0)), []),
        (metrics(300.0), against(around(-5.01)), ["max_drop mean"]),
        (metrics(300.0), against(around(-50.0, spread=50.0)), []),  # the interval reaches 0: it may be chance
        (metrics(300.0), against(around(-50.0, spread=49.9)), ["max_drop mean"]),
        (metrics(300.0), against(around(-4.0, spread=0.1)), []),  # surely a drop, but within the bound
        (metrics(300.0), against(around(0.0), a=around(-6.0), b=around(10.0)), ["max_drop a"]),
        (metrics(90.0), against(around(-200.0), a=around(-199.0)), ["min_rsum", "max_drop mean", "max_drop a"]),
        (metrics(300.0), against(around(0.0), a=around(math.nan)), ["max_drop a"]),
        (metrics(300.0), against(around(0.0), mean=around(-200.0)), ["max_drop mean"]),  # a source of this name
        (metrics(500.0), LostHolder("holder zerovl@3 cannot be loaded"), ["max_drop"]),
    ],
)
def test_absolute_bounds_and_drops(
    candidate: dict[str, Any], holder: Comparison | LostHolder | NoHolder, failed_rules: list[str]
) -> None:
    verdict = judge(candidate, holder, GateParams(min_rsum=100.0, max_drop=5.0, difference="none"))
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
    verdict = judge(metrics(300.0), against(Interval((low + high) / 2, low, high)), gate)
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


def test_a_bound_s_line_tells_the_interval_and_the_value_decides() -> None:
    pets = {"overall": {"top1": 60.0, "top1_low": 50.0, "top1_high": 70.0, "pictures": 9}, "sources": {}}
    candidate = {**metrics(300.0, a=90.0), "evaluators": {"pets": pets}}
    candidate["sources"]["a"] |= {"rsum_low": 80.0, "rsum_high": 101.0}
    gate = GateParams(
        min_rsum=300,
        min_source_rsum={"a": 90.1},
        min_metrics={"pets.top1": 60, "pets.pictures": 9, "retrieval.rsum@a": 1},
    )
    lines = [str(reason) for reason in judge(candidate, FIRST, gate).reasons]
    said = " (the value counts, not its interval)"
    assert lines[:5] == [
        f"passed   min_rsum: 300.00 [295.00, 305.00], bound 300.00{said}",
        f"FAILED   min_source_rsum a: 90.00 [80.00, 101.00], bound 90.10{said}",
        "passed   min_metrics pets.pictures: 9.00, bound 9.00",
        f"passed   min_metrics pets.top1: 60.00 [50.00, 70.00], bound 60.00{said}",
        f"passed   min_metrics retrieval.rsum@a: 90.00 [80.00, 101.00], bound 1.00{said}",
    ]


def test_two_pools_are_shown_with_the_difference_of_pools() -> None:
    """Releases of before there was a mean: their sources' places by query have one, but nobody sees it."""
    pool = {"overall": metrics(90.0)["mean"], "sources": {}}
    holder = Holder.released("zerovl@1", "zerovl@production", {"overall": {"rsum": 88.0}})
    compared = Comparison(around(50.0), {}, holder=holder, pool=around(2.0))
    told = str(judge(pool, compared, GateParams()).holder)
    assert told == "zerovl@1, RSUM 88.00 (pool); this one +2.00 [+1.00, +3.00]"


def test_what_is_not_compared_is_said() -> None:
    reason = judge(metrics(90.0), FIRST, GateParams()).reasons[-1]
    assert str(reason) == "skipped  max_drop (the alias has no holder yet)"
    lost = judge(metrics(90.0), LostHolder("holder zerovl@3 cannot be loaded: no weights"), GateParams()).reasons[-1]
    assert str(lost) == "FAILED   max_drop (holder zerovl@3 cannot be loaded: no weights)"
    again = judge(metrics(90.0), against(around(-9.0, 12.0), "holder zerovl@3 re-scored: other data"), GateParams())
    assert str(again.reasons[1]) == (
        "passed   max_drop mean: 9.00 [-3.00, 21.00], bound 5.00 (holder zerovl@3 re-scored: other data; "
        "above the bound, but its interval reaches 0: it may be chance)"
    )


@pytest.mark.parametrize(
    ("score", "spread", "chance", "passed"),
    [
        (193.0, 9.0, 16.0, True),
        (18.0, 1.0, 16.0, False),  # above chance, but no more than untrained models may be
        (60.0, 40.0, 16.0, False),  # a few queries tell nothing
        (math.nan, 0.0, 16.0, False),
        (600.0, 0.0, 600.0, False),  # a split with one picture
        (600.0, 0.0, 500.0, True),  # two pictures, both found
        (8.0, 1.0, 0.6, False),
        (20.0, 1.0, 0.6, True),  # among 5,000 pictures
    ],
)
def test_by_default_a_candidate_must_have_learned_something(
    score: float, spread: float, chance: float, passed: bool
) -> None:
    candidate = metrics(score, spread, chance)
    reason = judge(candidate, FIRST, GateParams()).reasons[0]
    assert (reason.rule, reason.bound, reason.passed) == ("min_rsum", more_than_chance(chance), passed)
    assert ("Train longer" in reason.note) is not passed
    assert judge(metrics(9.0), FIRST, GateParams(min_rsum=9.0)).passed  # a bound of one's own


@pytest.mark.parametrize("value", [-1, 600.5, True, "chance", None])
def test_other_bounds_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="give a number from 0 to 600, or above_chance"):
        GateParams(min_rsum=value)


def test_a_release_without_a_mean_is_judged_by_its_pool() -> None:
    pool = {"overall": metrics(90.0)["mean"], "sources": {}}
    reason = judge(pool, FIRST, GateParams()).reasons[0]
    assert (reason.value, reason.passed) == (90.0, True)


def test_one_source_and_its_mean_are_one_rule() -> None:
    def rules(comparison: Comparison) -> list[tuple[str, bool, str]]:
        told = judge(metrics(300.0), comparison, GateParams(difference="none")).reasons[1:]
        return [(reason.rule, reason.passed, reason.note) for reason in told]

    assert rules(against(around(-9.0), "re-scored", web=around(-9.0))) == [("max_drop web", False, "re-scored")]
    assert rules(against(around(1.0), "re-scored", web=around(1.0), shapes=around(1.0))) == [
        ("max_drop mean", True, "re-scored"),
        ("max_drop shapes", True, ""),
        ("max_drop web", True, ""),
    ]
    assert [rule for rule, _, _ in rules(against(around(-9.0)))] == ["max_drop mean"]


def test_numbers_are_kept() -> None:
    holder = against(Interval(-10.0, -12.5, -7.0), a=Interval(-1.0, -2.0, 0.5))
    verdict = judge(metrics(300.0, a=200.0), holder, GateParams(min_rsum=10.0, max_drop=5.0))
    its = {"note": "the value counts, not its interval", "low": 295.0, "high": 305.0}
    assert verdict.to_json()["reasons"] == [
        {"rule": "min_rsum", "value": 300.0, "bound": 10.0, "passed": True, **its},
        {
            "rule": "max_drop mean",
            "value": 10.0,
            "bound": 5.0,
            "passed": False,
            "note": "",
            "low": 7.0,
            "high": 12.5,
        },
        {"rule": "max_drop a", "value": 1.0, "bound": 5.0, "passed": True, "note": "", "low": -0.5, "high": 2.0},
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
    assert str(verdict.reasons[1]) == "FAILED   max_drop mean: 10.00 [7.00, 12.50], bound 5.00"
    assert str(verdict.reasons[3]) == "FAILED   difference: -10.00 [-12.50, -7.00], bound 0.00 (not_worse)"
    assert in_one_line(verdict.to_json()) == (
        "FAILED, max_drop mean: 10.00 [7.00, 12.50], bound 5.00; difference: -10.00 [-12.50, -7.00], bound 0.00"
    )
    passed = judge(metrics(300.0), FIRST, GateParams(min_rsum=10.0))
    assert in_one_line(passed.to_json()) == "passed, min_rsum: 300.00 [295.00, 305.00], bound 10.00"
    assert in_one_line(None) == "-"


@pytest.mark.parametrize("candidate", [{}, {"overall": {}}, {"overall": {"rsum": "high"}}, metrics(None)])
def test_metrics_without_a_score_are_an_error(candidate: dict[str, Any]) -> None:
    with pytest.raises(ZeroVLError, match=r"no (chance_)?rsum in their (mean|pool); run `dvc repro -f evaluate`"):
        judge(candidate, FIRST, GateParams())


def test_a_verdict_names_the_holder_with_its_score_on_these_queries() -> None:
    holder = Holder("zerovl@3", "zerovl@production", "pool", 93.0)  # as released: of before there was a mean
    verdict = judge(metrics(300.0), Comparison(around(2.5), {}, holder=holder), GateParams())
    assert verdict.holder == Holder("zerovl@3", "zerovl@production", "mean", 297.5, around(2.5))
    assert str(verdict.holder) == "zerovl@3, RSUM 297.50; this one +2.50 [+1.50, +3.50]"
    assert holder_from(json.loads(json.dumps(verdict.to_json()))) == verdict.holder


def test_a_lost_holder_is_named_too_and_verdicts_of_before_are_read() -> None:
    holder = Holder("zerovl@3", "zerovl@production", "pool", 93.0)
    verdict = judge(metrics(300.0), LostHolder("holder zerovl@3 cannot be loaded", holder), GateParams())
    assert str(verdict.holder) == "zerovl@3, RSUM 93.00 (pool); not compared: it cannot be measured any more"
    first = judge(metrics(300.0), FIRST, GateParams())
    assert (first.holder, holder_from(first.to_json()), holder_from(None)) == (None, None, None)
    assert "holder" not in first.to_json()
