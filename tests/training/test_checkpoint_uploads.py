"""Uploads beside training: one at a time, the newest waits, and a server that is away stops nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import SimpleNamespace

import pytest

from zerovl.errors import ZeroVLError
from zerovl.s3_files import Told
from zerovl.training import uploads as module
from zerovl.training.copied_checkpoints import Snapshot
from zerovl.training.uploads import Kept, Uploads

GONE = 40  # a step whose files are not there any more


@contextmanager
def opened(step: int) -> Iterator[Snapshot]:
    if step == GONE:
        raise FileNotFoundError(step)
    yield Snapshot(step, 1, {}, {})


class Gate:
    """A place whose uploads wait until they are let through; each tells of a byte before and after."""

    uri = "s3://bucket/run"

    def __init__(self, failures: int = 0) -> None:
        self.begun = {step: Event() for step in range(50)}
        self.let = {step: Event() for step in range(50)}
        self.written: list[int] = []
        self.dropped: list[tuple[int, int, int]] = []
        self.at_once = 0
        self.failures = failures

    def upload(self, files: Snapshot, told: Told) -> None:
        self.at_once += 1
        assert self.at_once == 1
        try:
            told(1)
            self.begun[files.step].set()
            while not self.let[files.step].wait(0.005):
                told(0)
            if self.failures:
                self.failures -= 1
                raise ZeroVLError(f"s3://bucket/run: no answer, {self.failures} left")
            self.written.append(files.step)
        finally:
            self.at_once -= 1

    def drop_old(self, step: int, keep: int, keep_every: int) -> None:
        self.dropped.append((step, keep, keep_every))


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "zerovl")
    return lambda: [record.getMessage() for record in caplog.records]


def nothing() -> None: ...


def test_one_at_a_time_the_newest_waits_and_older_ones_are_skipped() -> None:
    gate = Gate()
    uploads = Uploads(gate, Kept(2, 5), opened)
    uploads.offer(1)
    assert gate.begun[1].wait(10)
    for step in (2, 3, 4):
        uploads.offer(step)
    assert gate.written == []
    gate.let[1].set()
    assert gate.begun[4].wait(10)
    gate.let[4].set()
    assert uploads.finish(4, 10, nothing)
    ended(uploads)
    assert gate.written == [1, 4]
    assert gate.dropped == [(1, 2, 5), (4, 2, 5)]
    assert (uploads.counts.copied, uploads.counts.skipped, uploads.counts.failed) == (2, 2, 0)


def test_at_the_end_an_older_one_makes_way_and_what_was_removed_is_skipped() -> None:
    gate = Gate()
    uploads = Uploads(gate, Kept(1, 0), opened)
    uploads.offer(GONE)
    uploads.offer(5)
    assert gate.begun[5].wait(10)
    gate.let[6].set()
    assert uploads.finish(6, 10, nothing)  # 5 never gets through
    assert gate.written == [6]
    assert (uploads.counts.copied, uploads.counts.skipped) == (1, 2)
    assert uploads.finish(6, 10, nothing)  # nothing to do
    assert gate.written == [6]


def test_a_server_that_is_away_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, heard: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    gate = Gate(failures=3)
    uploads = Uploads(gate, Kept(2, 0), opened)
    gate.let[7].set()
    uploads.offer(7)
    assert uploads.finish(7, 10, nothing)
    assert heard() == [
        "s3://bucket/run: no answer, 2 left. Training goes on, and the newest checkpoint is copied when it works again",
        "s3://bucket/run: can be written again, the checkpoint of step 7 is there",
    ]
    assert (uploads.counts.copied, uploads.counts.failed) == (1, 3)


def test_the_end_gives_up_where_nothing_moves_and_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    ticks: list[int] = []
    stuck = Stuck()
    uploads = Uploads(stuck, Kept(2, 0), opened)
    uploads.offer(8)
    assert stuck.begun[8].wait(10)
    assert not uploads.finish(8, 0.5, lambda: ticks.append(1))  # it never gets through
    assert ticks
    stuck.let[8].set()
    ended(uploads)
    assert stuck.written == []

    away = Gate()
    away.upload = refuse  # type: ignore[method-assign]
    uploads = Uploads(away, Kept(2, 0), opened)
    uploads.offer(8)
    deadline = time.monotonic() + 10
    while not uploads.problem and time.monotonic() < deadline:
        time.sleep(0.005)
    assert uploads.problem == "s3://bucket/run: the checkpoint of step 8 cannot be copied: KeyError: 'odd'"
    assert not uploads.finish(8, 0.05, nothing)
    ended(uploads)


@pytest.mark.parametrize(("failures", "copied"), [(0, True), (99, False)])
def test_a_file_that_is_read_for_its_digest_is_no_silence_but_not_again_and_again(
    failures: int, copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the end goes on by 0.03 s before each block that is read, five times a file; 0.05 s are silence."""
    clock, ticked = [0.0], Event()
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def read(files: Snapshot, told: Told) -> None:
        for _ in range(5):
            clock[0] += 0.03
            told(0)
            ticked.clear()
            ticked.wait(10)
        if gate.failures:
            gate.failures -= 1
            raise ZeroVLError("s3://bucket/run: no answer")
        told(1)

    gate = Gate(failures)
    gate.upload = read  # type: ignore[method-assign]
    uploads = Uploads(gate, Kept(2, 0), opened)
    assert uploads.finish(8, 0.05, ticked.set) is copied
    assert uploads.counts.failed == (0 if copied else module._READ_AGAIN)
    ticked.set()
    ended(uploads)


def test_old_copies_that_cannot_be_removed_are_told_once_and_stop_nothing(heard: Callable[[], list[str]]) -> None:
    def fail(step: int, keep: int, keep_every: int) -> None:
        raise KeyError("odd")

    gate = Gate()
    gate.drop_old = fail  # type: ignore[method-assign]
    uploads = Uploads(gate, Kept(2, 0), opened)
    for step in (1, 2):
        gate.let[step].set()
        uploads.offer(step)
        assert gate.begun[step].wait(10)
    assert uploads.finish(2, 10, nothing)
    assert heard() == ["old copies of checkpoints stay (said once): KeyError: 'odd'"]
    assert uploads.counts.copied == 2


class Stuck(Gate):
    """A place that tells of the last byte of each upload when it is let through, and of none before."""

    def upload(self, files: Snapshot, told: Told) -> None:
        self.begun[files.step].set()
        self.let[files.step].wait(10)
        told(1)
        self.written.append(files.step)


def ended(uploads: Uploads) -> None:
    thread = uploads._thread
    assert thread
    thread.join(10)
    assert not thread.is_alive()


def refuse(files: Snapshot, told: Told) -> None:
    raise KeyError("odd")
