"""Runs in MLflow, by its own client; `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and all that it reads count."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from zerovl.tracking.base import Point, Results, State, TrackedRun, without_credentials

URI = "MLFLOW_TRACKING_URI"
_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
# What its client would wait for a server that is away, up to minutes: here each request is made again later anyway.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# A call takes that many at most: https://mlflow.org/docs/latest/api_reference/rest-api.html#request-limits
_METRICS, _PARAMETERS = 1000, 100
_NO_SUCH_RUN = "RESOURCE_DOES_NOT_EXIST"
_STATUS: dict[State, str] = {
    "running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED",
}  # fmt: skip
_Item = TypeVar("_Item")


class MlflowRuns:
    """A run of MLflow, in the experiment that is called like the model in the registry."""

    def __init__(self, project: str) -> None:
        for name, value in _IMPATIENT.items():
            os.environ.setdefault(name, value)
        self._experiment = os.environ.get(_EXPERIMENT) or project
        self._client: Any = None
        self._run = ""
        self._times: dict[int, int] = {}  # by step, of what was told last

    def place(self) -> str:
        """Return address and experiment; a name and password in the address stay out, since this is noted and shown."""
        return f"{without_credentials(os.environ[URI])}, experiment {self._experiment}"

    def open(self, run: TrackedRun) -> str:
        """Begin a run, or go on with the one that is known; a run that somebody has deleted begins again."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(os.environ[URI])
        found = self._known(run.known_as)
        if found is None:
            tags = {"zerovl.run": run.name}
            found = self._client.create_run(self._experiment_id(), tags=tags, run_name=run.name)
        self._run = found.info.run_id
        if run.state == "running" and found.info.status != _STATUS["running"]:  # `close` ends one, with its time
            self._client.update_run(self._run, status=_STATUS["running"])
        return self._run

    def parameters(self, values: Mapping[str, str]) -> None:
        """Take the run's parameters; MLflow cuts values of more than 6,000 characters."""
        from mlflow.entities import Param

        for part in _parts([Param(_allowed(name), value) for name, value in values.items()], _PARAMETERS):
            self._client.log_batch(self._run, params=part)

    def points(self, points: Sequence[Point]) -> None:
        """Take steps of its curves."""
        self._metrics([(name, value, point.step) for point in points for name, value in point.values.items()])

    def results(self, results: Results) -> None:
        """Take scores that are new as metrics, and notes as tags."""
        from mlflow.entities import RunTag

        self._metrics([(name, value, results.step) for name, value in results.new_scores.items()])
        tags = [RunTag(f"zerovl.{name}", value) for name, value in results.notes.items()]
        if tags:
            self._client.log_batch(self._run, tags=tags)

    def close(self, state: State) -> None:
        """Say how the run ended; one that was ended already keeps its time."""
        if self._client.get_run(self._run).info.status != _STATUS[state]:
            self._client.set_terminated(self._run, status=_STATUS[state])

    def _metrics(self, values: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        # A server that took points and did not say so keeps them once where they come again with the same time.
        now = int(1000 * time.time())
        self._times = times = {step: self._times.get(step, now) for _, _, step in values}
        told = [Metric(_allowed(name), value, times[step], step) for name, value, step in values]
        for part in _parts(told, _METRICS):
            self._client.log_batch(self._run, metrics=part)

    def _known(self, known_as: str) -> Any:
        """The run that is known, None where it is not there any more."""
        if not known_as:
            return None
        try:
            found = self._client.get_run(known_as)
        except Exception as error:  # of mlflow, which is imported where it is used alone
            if getattr(error, "error_code", "") != _NO_SUCH_RUN:
                raise
            return None
        return found if found.info.lifecycle_stage == "active" else None

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        return str(found.experiment_id if found else self._client.create_experiment(self._experiment))


def _allowed(name: str) -> str:
    """A name as MLflow takes it: letters, digits and _ - . space /"""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)


def _parts(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
