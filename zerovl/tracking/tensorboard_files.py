"""Event files for TensorBoard in `runs/<fingerprint>/tensorboard`: `tensorboard --logdir runs` shows all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zerovl.tracking.base import Point, Results, State, TrackedRun

FOLDER = "tensorboard"


class TensorBoardFiles:
    """A folder of event files; each process that goes on adds one."""

    def __init__(self, project: str) -> None:
        self._writer: Any = None

    def place(self) -> str:
        """Return the folder, which is the run's own."""
        return FOLDER

    def open(self, run: TrackedRun) -> str:
        """Open a file in the run's folder; the run is known as its first one, and begins again where that is gone."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / FOLDER
        self._writer = SummaryWriter(str(folder))
        if run.known_as and (folder / run.known_as).is_file():
            return run.known_as
        return max(path.name for path in folder.glob("events.*"))  # names begin with the time

    def parameters(self, values: Mapping[str, str]) -> None:
        """Write them as a table, on the tab Text."""
        self._writer.add_text("parameters", _table(values))

    def points(self, points: Sequence[Point]) -> None:
        """Write steps of the curves."""
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.step)
        self._writer.flush()

    def results(self, results: Results) -> None:
        """Write scores that are new as points of one step, notes as a table."""
        for name, value in results.new_scores.items():
            self._writer.add_scalar(name, value, results.step)
        if results.notes:
            self._writer.add_text("notes", _table(results.notes), results.step)
        self._writer.flush()

    def close(self, state: State) -> None:
        """Close the file; event files know no states."""
        self._writer.close()


def _table(values: Mapping[str, str]) -> str:
    rows = (f"| {name} | {value.replace('|', '&#124;')} |" for name, value in values.items())
    return "\n".join(["| | |", "|---|---|", *rows])
