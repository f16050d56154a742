"""A whole factory for tests: project, Prefect server and worker as processes of their own, asked over HTTP."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from flows.runtime.paths import Home
from tests.support.ports import free_port
from tests.support.project_copy import SMALL, commit, copy_project

T = TypeVar("T")
DONE = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def wait_for(what: str, look: Callable[[], T | None], seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)
    return found


class Factory:
    """`overrides` make the demo small; `environment` is that of server, worker and all they start."""

    def __init__(self, folder: Path, overrides: tuple[str, ...] = SMALL) -> None:
        self.root = copy_project(folder / "project")
        self.home = Home(self.root, self.root / ".flows")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.s3_endpoint = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "processes.log"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "ZEROVL_ROOT": str(self.root),
            "ZEROVL_REPORTS_URL": "http://reports.test",
            "ZEROVL_LEASE": str(folder / "lease"),
            "ZEROVL_CACHE": str(folder / "cache"),
            "ZEROVL_GRACE_SECONDS": "12",
            "AWS_ENDPOINT_URL": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "tester-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.command("-m", "zerovl.cli", "recipe", "demo", *overrides)
        commit(self.root, "small")
        self.server: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self.s3: subprocess.Popen[bytes] | None = None

    # -- processes

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_server(self) -> None:
        self.server = self.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))

        def healthy() -> bool:
            with suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/api/health", timeout=5).status_code == 200
            return False

        wait_for("a healthy server", healthy, 180)

    def start_worker(self) -> None:
        self.worker = self.start("prefect", "worker", "start", "--pool", "zerovl", "--name", "test")

    def start_s3(self, bucket: str) -> None:
        """moto's server at the endpoint that everything was told at the start."""
        port = self.s3_endpoint.rpartition(":")[2]
        self.s3 = subprocess.Popen(
            [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", port],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def made() -> bool:
            with suppress(httpx.HTTPError):
                return httpx.put(f"{self.s3_endpoint}/{bucket}", timeout=5).status_code == 200
            return False

        wait_for("a bucket", made, 60)

    def stop(self) -> None:
        if self.s3:
            self.s3.kill()
            self.s3.wait()
        for process in (self.worker, self.server):
            if process and process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Everything that was started here, whatever its parent is by now; not the zombies."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                ours = process.environ().get("ZEROVL_ROOT") == str(self.root)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def of_run(self, *words: str) -> list[psutil.Process]:
        """Processes of a run (not server and worker) with all `words` in their command line."""
        kept = {process.pid for process in (self.server, self.worker) if process}
        kept |= {child.pid for pid in list(kept) for child in _helpers(pid, self.server)}
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if process.pid not in kept and all(word in line for word in words):
                    found.append(process)
        return found

    def engine(self) -> psutil.Process:
        return next(
            iter(self.of_run("flow_engine") or self.of_run("prefect", "flow-run") or self.of_run("prefect.engine"))
        )

    # -- the API, as the UI uses it

    def api(self, method: str, path: str, content: Any = None) -> Any:
        answer = httpx.request(method, f"{self.url}/api{path}", json=content, timeout=30)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def run(self, deployment: str, **parameters: Any) -> str:
        found = self.api("GET", f"/deployments/name/{deployment}")
        made = self.api("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.api("GET", f"/flow_runs/{run}")["state"]
        return state

    def name(self, run: str) -> str:
        return str(self.api("GET", f"/flow_runs/{run}")["name"])

    def wait(self, run: str, seconds: float = 800) -> dict[str, Any]:
        """Until the run is at its end; returns its last state."""

        def ended() -> dict[str, Any] | None:
            with suppress(httpx.HTTPError):
                state = self.state(run)
                return state if state["type"] in DONE else None
            return None

        return wait_for(f"an end of run {run}", ended, seconds)

    def completed(self, run: str, seconds: float = 800) -> None:
        state = self.wait(run, seconds)
        assert state["type"] == "COMPLETED", f"{state['name']}: {state['message']}\n{self.logs(run)}"

    def logs(self, run: str) -> str:
        rows: list[dict[str, Any]] = []
        while True:
            page = self.api(
                "POST",
                "/logs/filter",
                {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "offset": len(rows), "limit": 200},
            )
            rows += page
            if len(page) < 200:
                return "\n".join(row["message"] for row in rows)

    def said(self, run: str, pattern: str) -> None:
        """Wait for a line of a run's log: lines are sent every two seconds, so the last ones come after its state."""
        wait_for(f"{pattern!r} in the log of run {run}", lambda: re.search(pattern, self.logs(run)), 60)

    def artifacts(self, run: str) -> dict[str, Any]:
        rows = self.api("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        return {row["key"]: row for row in rows if row["key"]}

    # -- training

    def steps(self) -> int:
        """Steps that any training in progress, or ended, has logged at most."""
        logs = self.home.runs.glob("*/metrics.jsonl")
        return max((len(log.read_bytes().splitlines()) for log in logs), default=0)

    def wait_for_steps(self, steps: int) -> None:
        wait_for(f"{steps} steps of training", lambda: self.steps() >= steps, 500)

    def gone(self, seconds: float) -> None:
        """No process of a run is left, and nobody holds the lease."""
        wait_for("no process of a run", lambda: not self.of_run(), seconds)
        with open(self.environment["ZEROVL_LEASE"], "a") as lease:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def version(self, number: int) -> dict[str, Any]:
        path = self.root / "registry" / "zerovl" / "versions" / f"{number}.json"
        record: dict[str, Any] = json.loads(path.read_text())
        return record


def _helpers(pid: int, server: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
    if server is None or pid != server.pid:
        return []
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def kill(process: psutil.Process | subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    if isinstance(process, subprocess.Popen):
        process.wait()
