"""What benchmarks.bench_cancel takes for a clean end of a cancelled run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import bench_cancel


class Factory:
    """One whose run is in this state once it is cancelled, with these stages in its lock."""

    def __init__(self, folder: Path, state: str, done: str) -> None:
        self.environment = {"ZEROVL_LEASE": str(folder)}
        self.paths = SimpleNamespace(checkouts=folder)
        self.looked, self.ended = 0, {"type": "CANCELLED", "name": state}
        (folder / "run").mkdir()
        (folder / "run" / "dvc.lock").write_text(f"stages: {{{done}}}")

    def run(self, deployment: str, **parameters: Any) -> str:
        return "run"

    def name(self, run: str) -> str:
        return run

    cancel = name

    def state(self, run: str) -> dict[str, str]:
        self.looked += 1
        return self.ended if self.looked > 2 else {"type": "CANCELLING", "name": "Cancelling"}

    def of_run(self, run: str) -> list[str]:
        return []


@contextmanager
def middle(_: object) -> Iterator[Callable[[str], object]]:
    yield lambda run: run


@pytest.mark.parametrize(
    ("state", "done", "wrong"),
    [
        ("Cancelled", "prepare: 1", ""),
        ("Skipped", "prepare: 1", "Skipped"),
        ("Cancelled", "prepare: 1, validate: 1", "validate was cancelled, and DVC takes it for done"),
    ],
)
def test_a_cancelled_run_left_nothing_that_is_taken_for_whole(
    tmp_path: Path, state: str, done: str, wrong: str
) -> None:
    factory: Any = Factory(tmp_path, state, done)
    if wrong:
        with pytest.raises(AssertionError, match=wrong):
            bench_cancel.cancelled(factory, "validate", middle)
        return
    record = bench_cancel.cancelled(factory, "validate", middle)
    assert 0 <= record["seconds_to_no_process"] <= record["seconds_to_cancelled"]  # two looks later
