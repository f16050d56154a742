"""Runs in a real MLflow server on this machine, by MLflow's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.tiny_project import recipe
from zerovl.tracking.delivery import Delivery
from zerovl.tracking.facts import Facts, change_facts, write_facts
from zerovl.tracking.mlflow_runs import MlflowRuns

pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'zerovl[tracking-mlflow]'")


class Server:
    """MLflow's own server as a process on a free port, over SQLite."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """As `mlflow server --workers 1` starts it, without the import of mlflow that is its command line's own."""
        environment = {
            **os.environ,
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{self._folder}/runs.sqlite",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": str(self._folder / "artifacts"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = [sys.executable, "-m", "uvicorn", "--port", str(self.port), "mlflow.server.fastapi_app:app"]
        log = self._folder / "server.log"
        with open(log, "wb") as file:
            self._process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=self._folder)
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=60):
                    return
            except OSError:
                assert self._process.poll() is None, log.read_text()
                time.sleep(0.2)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Not started yet."""
    its = Server(tmp_path_factory.mktemp("mlflow"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", its.address)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")  # its first answer makes the tables, on a busy machine too
        for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
            patch.delenv(name, raising=False)
        yield its
        its.stop()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "3f2a90c14be7d105"
    write_facts(folder, Facts.of(recipe("register.name=birds"), 4, {"data": "abc"}))
    return folder


def add_rows(folder: Path, *steps: int) -> None:
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        for step in steps:
            row = {"step": step, "loss": 3.0 - step, "lr": 1e-3, "source": "alpha", "valid_grocery.top1@x": 12.5}
            file.write(json.dumps(row) + "\n")


def delivery(folder: Path) -> Delivery:
    return Delivery("mlflow", MlflowRuns("birds"), folder)


def test_a_run_from_a_server_that_is_away_to_its_release(server: Server, run: Path) -> None:
    add_rows(run, 0, 1)
    first = delivery(run)
    with pytest.raises(Exception, match=r"Max retries exceeded|refused"):
        first.tell()
    server.start()
    first.tell()

    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.address)
    experiment = client.get_experiment_by_name("birds")
    assert experiment is not None
    (shown,) = client.search_runs([experiment.experiment_id])
    assert (shown.info.run_name, shown.info.status) == ("3f2a90c14be7d105", "RUNNING")
    assert shown.data.params["train.batch_size"] == "16"
    assert shown.data.params["register.name"] == "birds"
    first.finish("interrupted")
    assert client.get_run(shown.info.run_id).info.status == "KILLED"

    add_rows(run, 2, 3)  # it goes on, in another process
    delivery(run).finish("finished")
    found = client.get_metric_history(shown.info.run_id, "loss")
    assert [(point.step, point.value) for point in found] == [(0, 3.0), (1, 2.0), (2, 1.0), (3, 0.0)]
    assert len(client.get_metric_history(shown.info.run_id, "valid_grocery.top1_x")) == 4

    notes = {"data": "abc", "release": "birds@3", "release_uri": "s3://bucket/birds@3"}
    change_facts(run, state="finished", scores={"evaluation/RSUM": 512.25}, notes=notes)
    delivery(run).finish("finished")
    (shown,) = client.search_runs([experiment.experiment_id])
    assert shown.info.status == "FINISHED"
    assert shown.info.end_time >= shown.info.start_time
    assert shown.data.metrics["evaluation/RSUM"] == 512.25
    assert shown.data.tags["zerovl.release_uri"] == "s3://bucket/birds@3"
    assert shown.data.tags["zerovl.run"] == "3f2a90c14be7d105"


def test_a_run_that_was_deleted_there_begins_again(server: Server, run: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.address)
    experiment = client.get_experiment_by_name("birds")
    assert experiment is not None
    (before,) = client.search_runs([experiment.experiment_id])
    client.delete_run(before.info.run_id)
    delivery(run).finish("finished")
    (after,) = client.search_runs([experiment.experiment_id])
    assert after.info.run_id != before.info.run_id
    assert after.info.end_time >= after.info.start_time  # of a run that was over when it was told of
    assert len(client.get_metric_history(after.info.run_id, "loss")) == 4
    assert after.data.metrics["evaluation/RSUM"] == 512.25
