"""What a tracker is: a place where teams look at their runs, beside the files of the project itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

State = Literal["running", "finished", "interrupted", "failed"]
_CREDENTIALS = re.compile(r"//[^/\s]*@")


@dataclass(frozen=True)
class TrackedRun:
    """A run as it is shown to a tracker."""

    name: str  # its fingerprint
    project: str  # what its runs are grouped by
    folder: Path  # runs/<fingerprint>
    known_as: str  # what the tracker called it before; "" for a new one
    state: State


@dataclass(frozen=True)
class Point:
    """The numbers of one step of training."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Results:
    """What is known of a run's model beside its training, after `step` steps."""

    step: int
    scores: Mapping[str, float]  # of the evaluation, headline first
    notes: Mapping[str, str]  # as {"release": "zerovl@3"}
    known: Mapping[str, float] = field(default_factory=dict)  # scores that the tracker was told before

    @property
    def new_scores(self) -> dict[str, float]:
        """Return the scores that were not told yet: as points of curves those told twice would stand there twice."""
        return {name: value for name, value in self.scores.items() if self.known.get(name) != value}


class Tracker(Protocol):
    """One run in one tracker. Whatever a method raises counts as a tracker that is away: it is tried again later."""

    def place(self) -> str:
        """Return where its runs are, for people; another place has runs of its own."""

    def open(self, run: TrackedRun) -> str:
        """Begin a run, or go on with the one that is known, and return what it is known as."""

    def parameters(self, values: Mapping[str, str]) -> None:
        """Take the run's parameters, once a run."""

    def points(self, points: Sequence[Point]) -> None:
        """Take steps of its curves, in their order; they are kept when this returns."""

    def results(self, results: Results) -> None:
        """Take what is known now, in place of what was known before."""

    def close(self, state: State) -> None:
        """Say how the run stands, and let go of it."""


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield parameters by their full names, as ("train.lr", "0.001"); lists and free mappings as JSON."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value and name not in ("options", "config"):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def without_credentials(text: str) -> str:
    """Return a text without the names and passwords in its addresses."""
    return _CREDENTIALS.sub("//", text)
