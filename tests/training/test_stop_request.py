"""Ctrl-C once, twice in a hurry, and again after the answer."""

import signal
from collections.abc import Iterator

import pytest
import torch

from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine import trainer
from zerovl.engine.trainer import StopRequest
from zerovl.training import one_rank
from zerovl.training.checkpoint_copy import _COPYING


class Clock:
    """Stands where it is set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(trainer, "time", clock)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield clock
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_only_a_ctrl_c_that_can_be_an_answer_leaves(first: signal.Signals, clock: Clock) -> None:
    said: list[str] = []
    stop = StopRequest()
    stop.install(said.append)
    signal.raise_signal(first)
    assert said == [first.name]
    clock.now += 0.15
    signal.raise_signal(signal.SIGINT)
    clock.now += 5
    signal.raise_signal(signal.SIGTERM)  # a scheduler that repeats itself
    assert (stop.name, said) == (first.name, [first.name])
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_before_the_answer_is_out_does_not_leave(clock: Clock) -> None:
    def slow_terminal(name: str) -> None:
        clock.now += 60
        signal.raise_signal(signal.SIGINT)
        said.append(name)

    said: list[str] = []
    stop = StopRequest()
    stop.install(slow_terminal)
    signal.raise_signal(signal.SIGINT)
    assert said == ["SIGINT"]


@pytest.mark.parametrize(
    ("rank", "world", "phase", "text"),
    [
        (0, 1, "computing", "SIGINT: finishes the step and saves; press Ctrl-C again to leave without"),
        (0, 2, "computing", "SIGINT: finishes the step and saves"),
        (0, 1, _COPYING, "SIGINT: leaves when the last checkpoint is copied; press Ctrl-C again to leave without"),
        (1, 2, "computing", ""),
    ],
)
def test_the_first_rank_answers(
    rank: int, world: int, phase: str, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ranks = Ranks(rank, world, torch.device("cpu"), OneRank())
    ranks.activity.mark(phase)
    one_rank._answer(ranks, "SIGINT")
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].endswith(f"zerovl train: {text}") if text else not lines
