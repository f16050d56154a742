"""Helpers of a shared piece of work: one that ends before the others is named (test_sharing.py has a whole one)."""

from __future__ import annotations

import pytest
import torch

from tests.support.paths import ROOT
from zerovl.distributed.helpers import shared_work
from zerovl.errors import ZeroVLError

MODULE = "tests.support.helping"


@pytest.fixture(autouse=True)
def modules_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def _share(count: int, job: str) -> int:
    with shared_work(count, MODULE, job) as ranks:
        return int(ranks.collectives.sum(torch.tensor([ranks.rank])))


def test_one_rank_starts_nothing() -> None:
    assert _share(1, "killed") == 0


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("killed", r"rank 1 of 2 \(pid \d+\) died by SIGKILL \(if nobody sent it, .*\); nothing was written\. Run it"),
        ("damaged", "^the shard of rank 1 is damaged; get it again$"),
    ],
)
def test_a_helper_that_ends_early_is_named(job: str, message: str) -> None:
    with pytest.raises(ZeroVLError, match=message):
        _share(2, job)
