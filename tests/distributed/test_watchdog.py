"""Ranks that hang, stop, die or fail: real processes, whose main thread never notices by itself.

A main thread that sleeps stands for one that is blocked in an NCCL collective, which no exception ends.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.rank_groups import Group, run_groups
from zerovl.distributed import exits
from zerovl.distributed.activity import SAVING
from zerovl.distributed.ranks import Ranks
from zerovl.errors import ZeroVLError

LIMIT = 0.1  # minutes; a heartbeat is a second, a rank is silent after 4
FOR_EVER = 1000


def watched(function: Callable[..., Any]) -> Callable[..., Any]:
    function.watchdog_minutes = LIMIT  # type: ignore[attr-defined]
    return function


def together(ranks: Ranks) -> None:
    ranks.collectives.sum(torch.ones(1))


@watched
def hang_while_loading(ranks: Ranks) -> None:
    def batches() -> Any:
        yield from range(4)
        if ranks.rank == 1:
            time.sleep(FOR_EVER)
        yield 4

    for _ in ranks.activity.loading(batches(), start_step=0):
        together(ranks)


@watched
def hang_alone(ranks: Ranks) -> None:
    with ranks.activity.during(SAVING):
        time.sleep(FOR_EVER)


@watched
def stop(ranks: Ranks) -> None:
    ranks.activity.mark("computing", step=7)
    together(ranks)
    if ranks.rank == 1:
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGSTOP)
    together(ranks)


@watched
def stop_at_once(ranks: Ranks) -> None:
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    together(ranks)


@watched
def fail(ranks: Ranks) -> None:
    together(ranks)
    if ranks.rank == 1:
        raise ZeroVLError("shard 3 is damaged")
    time.sleep(FOR_EVER)


@watched
def fail_alike(ranks: Ranks) -> None:
    together(ranks)
    raise ZeroVLError("no verdict")


@watched
def fail_in_nccl(ranks: Ranks) -> None:
    together(ranks)
    if ranks.rank == 1:
        raise torch.distributed.DistBackendError("NCCL error in: x.cpp:77\nCuda failure 2 'out of memory'")
    time.sleep(FOR_EVER)


@watched
def die_while_others_are_told_to_end(ranks: Ranks) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    together(ranks)
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does
    while True:
        ranks.activity.mark("computing")  # makes progress, so the limit does not end it
        time.sleep(0.1)


@watched
def lose_the_store(ranks: Ranks) -> None:
    together(ranks)
    if ranks.rank == 0:  # holds the store
        time.sleep(2)  # long before both count as stuck
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(FOR_EVER)


@watched
def end_slowly_after_sigterm(ranks: Ranks) -> int:
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + (9 if ranks.rank else 5)  # rank 0 is done long before
    while time.monotonic() < deadline:
        ranks.activity.mark(SAVING)
        time.sleep(0.5)
    return ranks.rank


@watched
def wait_for_one_that_moves(ranks: Ranks) -> int:
    if ranks.rank == 1:
        for _ in range(20):  # 10 s, limit 6 s
            time.sleep(0.5)
            ranks.activity.mark("computing")
    together(ranks)
    return ranks.activity.calls


JOBS: list[tuple[int, Callable[..., Any]]] = [
    (3, hang_while_loading),
    (1, hang_alone),
    (2, stop),
    (2, stop_at_once),
    (2, fail),
    (2, fail_alike),
    (2, fail_in_nccl),
    (2, die_while_others_are_told_to_end),
    (2, lose_the_store),
    (2, end_slowly_after_sigterm),
    (2, wait_for_one_that_moves),
]


@pytest.fixture(scope="module")
def groups() -> dict[str, Group]:
    ended = run_groups([(size, function, ()) for size, function in JOBS])
    return {function.__name__: group for (_, function), group in zip(JOBS, ended, strict=True)}


def test_a_hanging_loader_is_named_once_with_its_stack(groups: dict[str, Group]) -> None:
    group = groups["hang_while_loading"]
    assert set(group.statuses) <= {exits.STUCK, 1}  # 1: gloo told it first that the others had left
    assert exits.STUCK in group.statuses
    said = [line for line in group.said.splitlines() if "zerovl train:" in line]
    assert len(said) == 1
    assert "no progress for 0.1 minutes (machine.watchdog_minutes): rank 1 (host" in said[0]
    assert "step 4: loading data) is stuck; 2 others wait for it" in said[0]
    assert "stacks of rank 1" in group.said
    assert "in batches" in group.said


def test_one_rank_alone_reports_and_leaves(groups: dict[str, Group]) -> None:
    group = groups["hang_alone"]
    assert group.statuses == [exits.STUCK]
    assert "step 0: saving) is stuck\n" in group.said
    assert "in hang_alone" in group.said


HANG = """
import time
from zerovl.distributed.activity import Activity
from zerovl.distributed.watchdog import Watchdog
print("a line that waits for a flush", end="")
Watchdog(Activity(), 0.01).start()
time.sleep(1000)
"""


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("open_output", [closed_pipe, lambda: os.open("/dev/full", os.O_WRONLY)], ids=["pipe", "disk"])
def test_a_stuck_process_ends_where_nobody_can_read_it(open_output: Callable[[], int]) -> None:
    output = open_output()
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # so that the line is written as the process ends
    child = subprocess.Popen([sys.executable, "-c", HANG], stdout=output, stderr=output, env=buffered)
    os.close(output)
    try:
        assert child.wait(timeout=100) == exits.STUCK
    finally:
        child.kill()
        child.wait()


def test_a_process_without_an_output_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(sys, "stdout", None)  # as where a process is started with it closed
    with pytest.raises(AttributeError):
        exits.leave(exits.STUCK)
    assert left == [exits.STUCK]


def test_a_stopped_rank_is_found_by_the_others_and_killed(groups: dict[str, Group]) -> None:
    group = groups["stop"]
    assert group.statuses == [exits.STUCK, -signal.SIGKILL]
    assert "rank 1 (host" in group.said
    assert "step 7: " in group.said
    assert "does not answer" in group.said


def test_a_rank_that_stopped_before_its_second_beat_is_named_too(groups: dict[str, Group]) -> None:
    group = groups["stop_at_once"]
    assert group.statuses == [exits.STUCK, -signal.SIGKILL]
    assert "rank 1 (host" in group.said


def test_a_failed_rank_takes_the_waiting_ones_with_it(groups: dict[str, Group]) -> None:
    group = groups["fail"]
    assert group.statuses == [exits.FAILED, 1]  # rank_groups ends with 1 after any exception
    assert "shard 3 is damaged" in group.said


def test_a_failure_inside_nccl_is_told_to_the_others(groups: dict[str, Group]) -> None:
    group = groups["fail_in_nccl"]
    assert group.statuses == [exits.LOST_PEER, 1]
    assert "out of memory" in group.said


def test_a_message_that_all_ranks_have_is_said_once(groups: dict[str, Group]) -> None:
    assert groups["fail_alike"].said.count("ZeroVLError: no verdict") == 1
    assert groups["fail_alike"].said.count("SystemExit: 2") <= 1  # none where its watchdog ends a rank that lags


def test_sigterm_does_not_wait_for_a_dead_rank(groups: dict[str, Group]) -> None:
    assert groups["die_while_others_are_told_to_end"].statuses == [exits.LOST_PEER, -signal.SIGKILL]


def test_a_rank_whose_store_is_gone_ends_by_its_own_limit(groups: dict[str, Group]) -> None:
    group = groups["lose_the_store"]
    assert group.statuses == [-signal.SIGKILL, exits.STUCK]
    assert "the store of the run is gone" in group.said
    assert "network" not in group.said


def test_sigterm_waits_for_living_ranks_that_save(groups: dict[str, Group]) -> None:
    group = groups["end_slowly_after_sigterm"]
    assert (group.statuses, group.results) == ([0, 0], [0, 1]), group.said


def test_ranks_that_wait_for_a_moving_one_are_left_in_peace(groups: dict[str, Group]) -> None:
    group = groups["wait_for_one_that_moves"]
    assert (group.statuses, group.results) == ([0, 0], [1, 1]), group.said


def test_the_first_word_in_the_error_file_counts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    exits.write_error_file("first", consequence=True)
    exits.write_error_file("second")
    assert exits.read_error_file(str(path)) == "first"
    assert json.loads(path.read_text())["timestamp"] > time.time() + 30
    assert exits.read_error_file(str(tmp_path / "none")) == ""
