from __future__ import annotations

import math
from typing import Any

import pytest

from zerovl.errors import ZeroVLError
from zerovl.params import GateParams
from zerovl.registry.gate import judge


def metrics(overall: float | None, digest: str | None = "d", **sources: float) -> dict[str, Any]:
    return {
        "overall": {"rsum": overall},
        "sources": {name: {"rsum": value} for name, value in sources.items()},
        "evaluation_digest": digest,
    }


@pytest.mark.parametrize(
    ("candidate", "holder", "passed", "failed_rules"),
    [
        (metrics(100.0), None, True, []),
        (metrics(99.99), None, False, ["min_rsum"]),
        (metrics(math.nan), None, False, ["min_rsum"]),
        (metrics(300.0), metrics(305.0), True, []),
        (metrics(300.0), metrics(305.01), False, ["max_drop overall"]),
        (metrics(304.9, a=0.3), metrics(300.0, a=5.3), True, []),
        (metrics(300.0, a=200.0, b=100.0), metrics(300.0, a=206.0, b=90.0), False, ["max_drop a"]),
        (metrics(300.0, a=200.0), metrics(300.0, a=200.0, b=1.0), False, ["max_drop b"]),
        (metrics(300.0, a=200.0, new=0.0), metrics(300.0, a=200.0), True, []),
        (metrics(90.0, a=1.0), metrics(300.0, a=200.0), False, ["min_rsum", "max_drop overall", "max_drop a"]),
        (metrics(300.0, a=math.nan), metrics(300.0, a=200.0), False, ["max_drop a"]),
        (metrics(200.0, "new"), metrics(500.0, "old"), True, []),
        (metrics(99.0, "new"), metrics(500.0, "old"), False, ["min_rsum"]),
        (metrics(200.0, None), metrics(500.0, None), True, []),
        (metrics(200.0), {}, True, []),
    ],
)
def test_judge(candidate: dict[str, Any], holder: dict[str, Any] | None, passed: bool, failed_rules: list[str]) -> None:
    verdict = judge(candidate, holder, GateParams(min_rsum=100.0, max_drop=5.0))
    assert verdict.passed is passed
    assert [reason.rule for reason in verdict.reasons if not reason.passed] == failed_rules
    assert verdict.to_json()["passed"] is passed


def test_what_is_not_compared_is_said() -> None:
    gate = GateParams(min_rsum=0.0, max_drop=5.0)
    for holder, note in [(None, "no holder yet"), (metrics(9.0, "old"), "not comparable: evaluation data differ")]:
        reason = judge(metrics(1.0, "new"), holder, gate).reasons[-1]
        assert note in reason.note
        assert note in str(reason)
        assert str(reason).startswith("skipped")
        assert reason.value is None


def test_numbers_are_kept() -> None:
    verdict = judge(metrics(300.0, a=200.0), metrics(310.0, a=201.0), GateParams(min_rsum=10.0, max_drop=5.0))
    assert verdict.to_json()["reasons"] == [
        {"rule": "min_rsum", "value": 300.0, "bound": 10.0, "passed": True, "note": ""},
        {"rule": "max_drop overall", "value": 10.0, "bound": 5.0, "passed": False, "note": ""},
        {"rule": "max_drop a", "value": 1.0, "bound": 5.0, "passed": True, "note": ""},
    ]
    assert str(verdict.reasons[1]) == "FAILED   max_drop overall: 10.00, bound 5.00"


@pytest.mark.parametrize("candidate", [{}, {"overall": {}}, {"overall": {"rsum": "high"}}, metrics(None)])
def test_metrics_without_a_score_are_an_error(candidate: dict[str, Any]) -> None:
    with pytest.raises(ZeroVLError, match=r"no overall.rsum"):
        judge(candidate, None, GateParams())
