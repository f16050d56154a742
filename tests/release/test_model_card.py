"""The card that goes with a release."""

from __future__ import annotations

from typing import Any

import pytest

from zerovl.params import Params
from zerovl.release import model_card

METRICS = {"overall": {"rsum": 90.0, "images": 3}, "sources": {}}


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        ({"fingerprint": "aa", "parent": {"run": "3f2a90c1", "step": 1200}}, ["run 3f2a90c1 after its step 1200"]),
        ({"fingerprint": "aa", "parent": None}, []),
        (None, []),  # a run of before there were parents
    ],
)
def test_the_run_that_it_goes_on_from(run: dict[str, Any] | None, lines: list[str]) -> None:
    origin = {} if run is None else {"run": run}
    card = model_card.render(Params(), METRICS, {}, origin, usage="")
    found = [line.partition("goes on from: ")[2] for line in card.splitlines() if "goes on from" in line]
    assert [line.partition(",")[0] for line in found] == lines
