"""Tell one tracker of one run what it does not know yet.

The run's own log is the queue, so nothing waits in memory and nothing is lost while a tracker is away; what was told is
noted in `runs/<fingerprint>/tracking/NAME.json`. A training that goes on from a checkpoint computes the steps behind it
again, to the same numbers: steps that were told are left out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zerovl.files import read_json, sha256_json, write_json
from zerovl.tracking.base import Point, State, TrackedRun, Tracker
from zerovl.tracking.facts import FOLDER, Facts, read_facts
from zerovl.workspace import RUN_LOG

_AT_ONCE = 200  # steps told before they are noted
_NO_CURVES = ("step", "source")


@dataclass(frozen=True)
class Told:
    """What a tracker knows of a run."""

    place: str
    known_as: str = ""
    parameters: bool = False
    step: int = -1  # the last one
    results: str = ""  # a digest of them
    scores: Mapping[str, float] = field(default_factory=dict)  # among the results
    state: str = ""


class Delivery:
    """One tracker and one run."""

    def __init__(self, name: str, tracker: Tracker, folder: Path) -> None:
        """`folder` is the run's."""
        self.folder, self._tracker = folder, tracker
        self._note = folder / FOLDER / f"{name}.json"
        self._log = LogReader(folder / RUN_LOG)
        self._waiting: list[Point] = []  # read, and not told yet
        self._is_open = False
        told = Told(**read_json(self._note)) if self._note.is_file() else Told(tracker.place())
        self._told = told if told.place == tracker.place() else Told(tracker.place())

    def tell(self) -> None:
        """Tell what is new; raises whatever the tracker's library raises, and goes on there the next time."""
        facts = self._facts()
        if not self._is_open:
            self._open(facts)
        if not self._told.parameters:
            self._tracker.parameters(facts.parameters)
            self._keep(parameters=True)
        self._waiting += self._log.new()
        self._waiting = [point for point in self._waiting if point.step > self._told.step]
        while self._waiting:
            part = self._waiting[:_AT_ONCE]
            self._tracker.points(part)
            self._keep(step=part[-1].step)
            self._waiting = self._waiting[_AT_ONCE:]
        digest = sha256_json([facts.scores, facts.notes])
        if digest != self._told.results and (facts.scores or facts.notes):
            self._tracker.results(replace(facts.results, known=self._told.scores))
            self._keep(results=digest, scores=facts.scores)

    def finish(self, state: State) -> None:
        """Tell what is new and how the run stands; raises as `tell` does."""
        self.tell()
        self._tracker.close(state)
        self._is_open = False
        self._keep(state=state)

    def left(self) -> int:
        """Return how many steps of the log were not told."""
        self._waiting += self._log.new()
        return sum(point.step > self._told.step for point in self._waiting)

    def _facts(self) -> Facts:
        facts = read_facts(self.folder)
        assert facts is not None, f"{self.folder}: no facts"  # written before a sender is started
        return facts

    def _open(self, facts: Facts) -> None:
        run = TrackedRun(self.folder.resolve().name, facts.project, self.folder, self._told.known_as, facts.state)
        known_as = self._tracker.open(run)
        if known_as != self._told.known_as:  # a new one, which knows nothing
            self._told = Told(self._told.place)
            self._log.rewind()
            self._waiting = []
        self._keep(known_as=known_as)
        self._is_open = True

    def _keep(self, **values: Any) -> None:
        self._told = replace(self._told, **values)
        write_json(self._note, asdict(self._told))


class LogReader:
    """Reads the rows that were added to a log; one that was written again is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._place = 0, 0  # inode, bytes read

    def rewind(self) -> None:
        """Begin again."""
        self._place = 0

    def new(self) -> list[Point]:
        """Return the steps since the last call; a row that is not whole yet comes later."""
        try:
            with open(self._path, "rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._file or found.st_size < self._place:
                    self._file, self._place = found.st_ino, 0
                file.seek(self._place)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._place += len(whole)
        return list(_points(whole.splitlines()))


def _points(lines: Sequence[bytes]) -> Iterator[Point]:
    """The numbers of rows; those that are none, and rows that a full disk cut, are left out."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        values = {
            name: float(value)
            for name, value in row.items()
            if name not in _NO_CURVES and isinstance(value, int | float) and math.isfinite(value)
        }
        yield Point(row["step"], values)
