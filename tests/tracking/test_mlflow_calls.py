"""What MLflow's client is asked for; `test_mlflow_server` has the server."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zerovl.tracking.base import Point, State, TrackedRun
from zerovl.tracking.mlflow_runs import MlflowRuns


class Client:
    """Stands in for MLflow's: one run, and an answer to a batch that may get lost on its way."""

    def __init__(self, status: str = "RUNNING") -> None:
        self.info = SimpleNamespace(run_id="a", status=status, lifecycle_stage="active")
        self.calls: list[str] = []
        self.points: list[tuple[int, int]] = []  # step, time
        self.loses_answers = False

    def get_run(self, _run: str) -> Any:
        return SimpleNamespace(info=self.info)

    def get_experiment_by_name(self, _name: str) -> Any:
        return SimpleNamespace(experiment_id="1")

    def create_run(self, *_: object, **_values: object) -> Any:
        return self.get_run("a")

    def update_run(self, _run: str, status: str) -> None:
        self.calls.append(f"update {status}")
        self.info.status = status

    def set_terminated(self, _run: str, status: str) -> None:
        self.calls.append(f"end {status}")
        self.info.status = status

    def log_batch(self, _run: str, metrics: list[Any]) -> None:
        self.points += [(each.step, each.timestamp) for each in metrics]
        if self.loses_answers:
            raise ConnectionError("read timed out")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a run whose client is another one."""
    tracking = pytest.importorskip("mlflow.tracking", reason="pip install 'zerovl[tracking-mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:p@ss@127.0.0.1:5000/its")

    def open_it(client: Client, state: State, known_as: str = "") -> MlflowRuns:
        monkeypatch.setattr(tracking, "MlflowClient", lambda _uri: client)
        runs = MlflowRuns("birds")
        assert runs.open(TrackedRun("3f2a", "birds", Path("runs/3f2a"), known_as, state)) == "a"
        return runs

    return open_it


def test_no_password_is_noted(opened: Any) -> None:
    assert opened(Client(), "running").place() == "http://127.0.0.1:5000/its, experiment birds"


@pytest.mark.parametrize(
    ("known_as", "status", "state", "calls"),
    [
        ("", "RUNNING", "finished", ["end FINISHED"]),  # a new one, told of after its end
        ("", "RUNNING", "running", ["end FINISHED"]),
        ("a", "KILLED", "running", ["update RUNNING", "end FINISHED"]),  # it goes on
        ("a", "FINISHED", "finished", []),  # scores came, its end stays
    ],
)
def test_a_run_has_an_end(opened: Any, known_as: str, status: str, state: State, calls: list[str]) -> None:
    client = Client(status)
    opened(client, state, known_as).close("finished")
    assert client.calls == calls


def test_points_that_are_told_again_have_their_time(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    runs = opened(client, "running")
    points = [Point(step, {"loss": 1.0}) for step in range(3)]
    client.loses_answers = True
    monkeypatch.setattr(time, "time", lambda: 1.0)
    with pytest.raises(ConnectionError):
        runs.points(points[:2])
    client.loses_answers = False
    monkeypatch.setattr(time, "time", lambda: 2.0)
    runs.points(points)
    assert client.points == [(0, 1000), (1, 1000), (0, 1000), (1, 1000), (2, 2000)]
