"""What ranks tell each other of themselves: whose fault it is that nothing moves, and what is said of it."""

import os
import signal
import socket
from typing import Any

import pytest
import torch

from zerovl.distributed import exits
from zerovl.distributed.activity import SAVING, Activity
from zerovl.distributed.heartbeats import Heartbeat, Heartbeats, blamed_ranks, stuck_message
from zerovl.distributed.siblings import end_siblings
from zerovl.distributed.watchdog import Watchdog


def test_a_sibling_that_ends_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def gone(_pid: int, number: int) -> None:
        tried.append(number)
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    end_siblings([Heartbeat(0, socket.gethostname(), os.getpid(), 1, 0, 0, "computing", False, 0.0)])
    assert tried == [signal.SIGUSR2, signal.SIGKILL]


class GoneStore:
    def clone(self) -> "GoneStore":
        return self

    def set_timeout(self, _: Any) -> None:
        pass

    def add(self, *_: Any) -> int:
        raise torch.distributed.DistNetworkError("Connection reset by peer")

    check = add


def test_a_verdict_holds_where_the_store_goes_at_that_moment(capfd: pytest.CaptureFixture[str]) -> None:
    """The store of a group that ends goes with its rank 0: the others leave by the verdict they have heard."""
    left: list[int] = []
    heartbeats = Heartbeats(GoneStore(), 1, 2)  # type: ignore[arg-type]
    watchdog = Watchdog(Activity(), 0.1, 1, heartbeats)
    end = {"kind": "stuck", "text": "rank 0 is stuck", "rank": 0, "status": exits.STUCK, "blamed_ranks": [0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exits, "leave", left.append)
        watchdog._obey(heartbeats, end)
    assert left == [exits.STUCK]
    assert "network" not in capfd.readouterr().err


def heartbeat(rank: int, step: int, calls: int, waiting: bool = False) -> Heartbeat:
    return Heartbeat(rank, "node", 100 + rank, 1, step, calls, "computing", waiting, 900.0)


def test_blamed_ranks() -> None:
    assert blamed_ranks([heartbeat(0, 5, 9, True), heartbeat(1, 5, 8), heartbeat(2, 5, 9, True)], set()) == [1]
    assert blamed_ranks([heartbeat(0, 5, 9), heartbeat(1, 4, 8), heartbeat(2, 5, 8)], set()) == [1]
    assert blamed_ranks([heartbeat(0, 5, 8, True), heartbeat(1, 5, 9)], set()) == [1]  # who waits is not to blame
    assert blamed_ranks([heartbeat(0, 5, 9, True), heartbeat(1, 5, 8)], {2}) == [2]
    assert blamed_ranks([heartbeat(0, 5, 9, True), heartbeat(1, 5, 9, True)], set()) == [0, 1]


def test_the_message_names_a_rank_that_was_never_heard_of_and_the_network() -> None:
    assert "rank 2 (never heard of) does not answer" in stuck_message(
        [heartbeat(0, 1, 1), heartbeat(1, 1, 1)], {2}, {2}, 15
    )
    assert "network between the hosts" in stuck_message(
        [heartbeat(0, 1, 1, True), heartbeat(1, 1, 1, True)], set(), set(), 15
    )


def test_activity_marks() -> None:
    activity = Activity()
    seen = [(activity.phase, activity.step) for _ in activity.loading(range(2), start_step=3)]
    assert seen == [("computing", 3), ("computing", 4)]
    assert (activity.phase, activity.step) == ("loading data", 5)
    with activity.during(SAVING):
        assert activity.phase == SAVING
    assert activity.phase == "loading data"
    before = activity.marks
    with activity.collective():
        assert activity.waiting
        assert activity.calls == 1
    assert not activity.waiting
    assert activity.marks == before + 2
