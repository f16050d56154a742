"""What a tracker is told: everything once, in order, whatever it and the training do in between."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.tiny_project import recipe
from zerovl.tracking import sender
from zerovl.tracking.base import Point, Results, State, TrackedRun, flat
from zerovl.tracking.delivery import Delivery
from zerovl.tracking.facts import Facts, change_facts, read_facts, write_facts
from zerovl.tracking.sender import Sender
from zerovl.tracking.trackers import TRACKERS, Kind


class Notebook:
    """A tracker that keeps what it is told, and is away while `away` is set."""

    def __init__(self, where: str = "here") -> None:
        self.away, self.where = False, where
        self.opened: list[str] = []
        self.told: list[int] = []
        self.given: Mapping[str, str] = {}
        self.found: Results | None = None
        self.states: list[State] = []

    def place(self) -> str:
        return self.where

    def open(self, run: TrackedRun) -> str:
        self._answer()
        self.opened.append(run.known_as)
        return run.known_as or f"number {len(self.opened)}"

    def parameters(self, values: Mapping[str, str]) -> None:
        self._answer()
        assert not self.given
        self.given = values

    def points(self, points: Sequence[Point]) -> None:
        self._answer()
        self.told += [point.step for point in points]

    def results(self, results: Results) -> None:
        self._answer()
        self.found = results

    def close(self, state: State) -> None:
        self._answer()
        self.states.append(state)

    def _answer(self) -> None:
        if self.away:
            raise ConnectionError("nobody\nanswers")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "3f2a90c14be7d105"
    write_facts(folder, Facts.of(recipe(), 10, {"data": "abc"}))
    return folder


def write_rows(folder: Path, *steps: int) -> None:
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": step, "loss": 1.0, "source": "alpha"}) + "\n" for step in steps)


def test_everything_is_told_once(run: Path) -> None:
    tracker = Notebook()
    delivery = Delivery("notebook", tracker, run)
    write_rows(run, *range(250))
    delivery.tell()
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 250, "lo')  # as far as the disk had it
    delivery.tell()
    assert tracker.told == list(range(250))
    assert tracker.given["train.batch_size"] == "16"
    assert tracker.given["model.text_tower.config"].startswith('{"hidden_size": 32')
    change_facts(run, scores={"evaluation/RSUM": 500.0})
    delivery.finish("finished")
    assert tracker.found == Results(10, {"evaluation/RSUM": 500.0}, {"data": "abc"})
    assert tracker.states == ["finished"]
    # A release is told with the scores, which are known, by a process of its own.
    change_facts(run, notes={"release": "zerovl@1"}, scores={"evaluation/RSUM": 500.0, "evaluation/R@1": 40.0})
    Delivery("notebook", tracker, run).finish("finished")
    assert tracker.found.notes == {"release": "zerovl@1"}
    assert tracker.found.scores == {"evaluation/RSUM": 500.0, "evaluation/R@1": 40.0}
    assert tracker.found.new_scores == {"evaluation/R@1": 40.0}


def test_a_run_that_goes_on_is_the_same_run_and_repeats_no_step(run: Path) -> None:
    write_rows(run, 0, 1, 2, 3, 4)
    before = Notebook()
    Delivery("notebook", before, run).finish("failed")
    (run / "metrics.jsonl").unlink()
    write_rows(run, 0, 1, 2, 3, 4, 5, 6)  # from the checkpoint of step 2 on, computed again
    after = Notebook()
    Delivery("notebook", after, run).finish("finished")
    assert after.opened == ["number 1"]
    assert after.told == [5, 6]
    assert not after.given
    assert after.found is None  # which is known


def test_another_place_has_a_run_of_its_own(run: Path) -> None:
    write_rows(run, 0, 1)
    Delivery("notebook", Notebook(), run).finish("finished")
    elsewhere = Notebook("elsewhere")
    Delivery("notebook", elsewhere, run).finish("finished")
    assert (elsewhere.opened, elsewhere.told) == ([""], [0, 1])


def test_a_run_that_was_deleted_there_is_told_from_its_beginning(run: Path) -> None:
    class Forgetful(Notebook):
        def open(self, run: TrackedRun) -> str:
            self.opened.append(run.known_as)
            return "a new one"

    write_rows(run, 0, 1)
    Delivery("notebook", Notebook(), run).finish("finished")
    forgetful = Forgetful()
    Delivery("notebook", forgetful, run).finish("finished")
    assert forgetful.told == [0, 1]
    assert forgetful.given


def test_a_log_that_is_written_again_while_it_is_followed(run: Path) -> None:
    tracker = Notebook()
    delivery = Delivery("notebook", tracker, run)
    write_rows(run, 0, 1, 2)
    delivery.tell()
    (run / "new").mkdir()
    write_rows(run / "new", 0, 1, 2, 3)
    os.replace(run / "new" / "metrics.jsonl", run / "metrics.jsonl")
    delivery.tell()
    assert tracker.told == [0, 1, 2, 3]


def test_a_tracker_that_is_away_is_said_once_and_told_everything_later(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_EVERY_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "zerovl")
    tracker = Notebook("http://away")
    tracker.away = True
    write_rows(run, 0, 1)
    its = Sender("notebook", Delivery("notebook", tracker, run), "http://away")
    calls = 0

    def ended(_seconds: float) -> State | None:
        nonlocal calls
        calls += 1
        tracker.away = calls < 20
        return None if calls < 25 else "finished"

    assert its.finish(its.follow(ended))
    assert tracker.told == [0, 1]
    said = [record.message for record in caplog.records]
    assert len(said) == 2, said
    assert "http://away does not take what it is told (ConnectionError: nobody answers)" in said[0]
    assert said[1] == "notebook: http://away is back, and knows all steps"


def test_what_was_not_told_is_counted_and_kept(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "LAST_SECONDS", 0.0)
    tracker = Notebook()
    tracker.away = True
    write_rows(run, 0, 1, 2)
    assert not Sender("notebook", Delivery("notebook", tracker, run), "here").finish("finished")
    assert "3 steps and what came after them are kept" in caplog.records[-1].message
    assert "`zerovl track`" in caplog.records[-1].message
    tracker.away = False
    Delivery("notebook", tracker, run).finish("finished")
    assert tracker.told == [0, 1, 2]


@pytest.mark.parametrize(("word", "state"), [(b"interrupted", "interrupted"), (b"", "failed")])
def test_the_process_ends_by_the_word_of_the_training_or_with_its_end(
    run: Path, word: bytes, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Notebook()
    monkeypatch.setitem(TRACKERS, "notebook", Kind(lambda _project: tracker, "json"))
    monkeypatch.setattr(sender.signal, "signal", lambda *_: None)
    reading, writing = os.pipe()
    write_rows(run, 0)
    os.write(writing, word)
    os.close(writing)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sender.sys, "stdin", stdin)
        assert sender.main(run, "notebook") == 0
    assert (tracker.told, tracker.states) == ([0], [state])


def test_a_process_whose_training_was_killed_ends_whatever_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    parents, slept = iter([7, 7, 1]), list[float]()
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "_exit", lambda status: slept.append(-status))
    monkeypatch.setattr(sender, "time", SimpleNamespace(sleep=slept.append))
    sender.end_with(7)
    assert slept == [1.0, 1.0, 60.0, -1]


def test_who_waits_for_another_process_says_so_once(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zerovl")
    tries = iter([False, False, True])
    monkeypatch.setattr(sender, "try_lock", lambda *_: next(tries))
    monkeypatch.setattr(sender, "_EVERY_SECONDS", 0.0)
    with open(run / "a.lock", "w", encoding="utf-8") as lock:
        sender._wait_for(lock, "notebook", run)
    assert [record.message for record in caplog.records] == [
        f"notebook: waiting for another process that tells of {run}, until it ends"
    ]


def test_parameters_by_their_full_names() -> None:
    nested = {"train": {"lr": 1e-3, "mixup": "coin"}, "data": {"sources": [], "of": {}}, "options": {"a": {"b": 1}}}
    assert dict(flat(nested)) == {
        "train.lr": "0.001",
        "train.mixup": "coin",
        "data.sources": "[]",
        "data.of": "{}",
        "options": '{"a": {"b": 1}}',
    }


def test_addresses_of_hooks_are_told_to_nobody() -> None:
    given = Facts.of(recipe("register.hooks=[{url: 'https://hooks.example.org/a-secret'}]"), 1, {}).parameters
    assert "register.alias" in given
    assert "a-secret" not in json.dumps(given)


def test_facts_of_a_run_that_was_never_tracked(tmp_path: Path) -> None:
    change_facts(tmp_path, state="finished")
    assert read_facts(tmp_path) is None


def test_a_password_in_what_a_library_says_is_not_shown(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Away(Notebook):
        def open(self, run: TrackedRun) -> str:
            raise ConnectionError("API request to http://me:p@ss@127.0.0.1:1/api failed")

    delivery = Delivery("notebook", Away(), run)
    assert not Sender("notebook", delivery, "here")._attempt(delivery.tell)
    assert "http://127.0.0.1:1/api failed" in caplog.text
    assert "p@ss" not in caplog.text
