"""Sources that the gate names and the data do not have."""

from pathlib import Path
from typing import Any

import pytest

from zerovl.data.manifest import Manifest, SplitInfo
from zerovl.evaluation.gate_sources import gate_problem
from zerovl.params import GateParams

MANIFEST = Manifest(
    Path("manifest"),
    {
        ("photos", "train"): SplitInfo(9, 9, 0, ()),
        ("photos", "valid"): SplitInfo(3, 3, 0, ()),
        ("web", "train"): SplitInfo(9, 9, 0, ()),
        ("web", "valid"): SplitInfo(0, 0, 2, ()),  # all of them quarantined
    },
)


@pytest.mark.parametrize(
    "gate",
    [
        {},
        {"min_source_rsum": {"photos": 10.0}},
        {"min_metrics": {"retrieval.t2i_r1": 1, "retrieval.t2i_r1@photos": 1, "retrieval.t2i_r1@pool": 1}},
        {"min_metrics": {"grocery.top1": 1, "spread.distance@aisle": 1}},  # only their tables know
    ],
)
def test_what_the_evaluation_will_have_is_accepted(gate: dict[str, Any]) -> None:
    assert gate_problem(GateParams(**gate), MANIFEST) is None


def test_what_it_will_not_have_is_told_with_what_it_has() -> None:
    gate = GateParams(min_source_rsum={"phtos": 1.0, "web": 1.0}, min_metrics={"retrieval.t2i_r1@gone": 1.0})
    problem = gate_problem(gate, MANIFEST)
    assert problem
    for words in ("min_source_rsum: 'phtos'", "min_source_rsum: 'web'", "min_metrics.retrieval.t2i_r1@gone: 'gone'"):
        assert words in problem
    assert problem.endswith("name one of photos")
