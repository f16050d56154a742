"""What of six runs at once arrives on a server with SQLite, beside its UI and with both cores busy: flows/README.md.

python -m benchmarks.runs_at_once           # minutes; Prefect's server with the settings of `make ui`
python -m benchmarks.runs_at_once --runs 12 --out /dev/shm/runs.json

Stages sleep (benchmarks/imitated_run.py); two processes compute without end, and three threads ask the server for what
the pages of the UI ask it for.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common import RESULTS, Record, machine
from benchmarks.imitated_run import LINES, STAGES, line_of
from flows import PREFECT_SETTINGS, SERVER_SETTINGS
from zerovl.files import write_json

PAGES, BUSY = 3, 2  # threads that ask as a page does; processes that compute
STATES = {"PENDING", "RUNNING", "COMPLETED"}  # of each run and each task of a run that ends well
_LAST_SECONDS = 60.0  # that the server may take after the last run to write what it was told
_START_SECONDS, _ANSWER_SECONDS = 600.0, 600.0  # that the server may take to start, and to answer in the end
_BUSY_LOOP = "while True: pass"


class Server:
    """The API of a server; what is refused while it is busy is asked for again."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api"

    def ask(self, path: str, content: Any = None, method: str = "POST") -> Any:
        """Return the answer of the server; raises `TimeoutError` where there is none for ten minutes."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                answer = httpx.request(method, f"{self.url}{path}", json=content, timeout=90)
                if answer.is_success:
                    return answer.json()
                if answer.status_code < 500:
                    raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
            time.sleep(0.5)
        raise TimeoutError(f"{path}: the server had no answer for {_ANSWER_SECONDS:g} s")

    def wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until it answers; raises `SystemExit` with the end of its log where it ends or takes ten minutes."""
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).is_success:
                    return
            time.sleep(0.3)
        how = "does not answer" if process.poll() is None else f"ended with status {process.poll()}"
        raise SystemExit(f"the server {how}:\n{log.read_text(errors='replace')[-2000:]}")

    def lines(self, run: str) -> Counter[str]:
        """Return the lines of a run's log, each with how often it is there."""
        rows: list[Any] = []
        while True:
            chosen = {"logs": {"flow_run_id": {"any_": [run]}}, "offset": len(rows), "limit": 200}
            page = self.ask("/logs/filter", {**chosen, "sort": "TIMESTAMP_ASC"})
            rows += page
            if len(page) < 200:
                return Counter(row["message"] for row in rows)

    def arrived(self, run: str) -> Record:
        """Return how many states, pages and lines of a run are there."""
        of_run = {"flow_run_id": {"any_": [run]}}
        flow_states = self.ask(f"/flow_run_states/?flow_run_id={run}", method="GET")
        tasks = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        task_states = [self.ask(f"/task_run_states/?task_run_id={task['id']}", method="GET") for task in tasks]
        artifacts = {row["key"]: row["data"] for row in self.ask("/artifacts/filter", {"artifacts": of_run})}
        lines = self.lines(run)
        wanted = [line_of(stage, number) for stage in range(STAGES) for number in range(LINES)]
        return {
            "states of runs": len(STATES & {state["type"] for state in flow_states}),
            "states of tasks": sum(len(STATES & {state["type"] for state in states}) for states in task_states),
            "pages": sum(f"page-{stage}" in artifacts for stage in range(STAGES)),
            "bars at their end": sum(artifacts.get(f"progress-stage-{stage}") == 100 for stage in range(STAGES)),
            "lines": sum(lines[line] > 0 for line in wanted),
        }


def expected(runs: int) -> dict[str, int]:
    """Return what is there where nothing was lost."""
    of_one = {
        "states of runs": len(STATES),
        "states of tasks": len(STATES) * STAGES,
        "pages": STAGES,
        "bars at their end": STAGES,
        "lines": STAGES * LINES,
    }
    return {name: count * runs for name, count in of_one.items()}


def lost(runs: Sequence[Record], wanted: dict[str, int]) -> dict[str, int]:
    """Return for each kind how many did not arrive."""
    return {name: count - sum(run[name] for run in runs) for name, count in wanted.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure once, print it and write it; the status is 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "runs_at_once.json", help="result file")
    parser.add_argument("--runs", type=int, default=6, help="at once (default: 6)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="zerovl-runs-") as folder, ExitStack() as opened:
        record = measure(options.runs, Path(folder), opened)
    record["machine"] = machine()
    write_json(options.out, record)
    print(json.dumps({name: value for name, value in record.items() if name != "machine"}, indent=2))
    return int(any(record["lost"].values()))


def measure(runs: int, folder: Path, opened: ExitStack) -> Record:
    """Start everything, wait for the runs and count what the server has of them."""
    port = _free_port()
    server, began = Server(port), time.monotonic()
    environment = {
        **os.environ,
        **PREFECT_SETTINGS,
        **SERVER_SETTINGS,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": server.url,
    }
    log = folder / "log"
    started = _Started(environment, log, opened)
    api = started.start("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    server.wait(api, log)
    for _ in range(BUSY):
        started.start("-c", _BUSY_LOOP)
    asked: Counter[str] = Counter()
    over = threading.Event()
    opened.callback(over.set)
    for _ in range(PAGES):
        threading.Thread(target=_look, args=(server.url, over, asked), daemon=True).start()
    files = [folder / f"run-{number}.json" for number in range(runs)]
    processes = [started.start("-m", "benchmarks.imitated_run", str(file)) for file in files]
    failed = sum(process.wait() != 0 for process in processes)
    took = time.monotonic() - began
    told = [json.loads(file.read_text()) for file in files if file.is_file()]
    wanted, deadline = expected(runs), time.monotonic() + _LAST_SECONDS
    while True:
        missing = lost([server.arrived(each["run"]) for each in told], wanted)
        if not any(missing.values()) or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    answers = sum((Counter(each["answers"]) for each in told), Counter[str]())
    return {
        "runs": runs,
        "runs that failed": failed,
        "expected": wanted,
        "lost": missing,
        "pages kept in files": sum(each["unsent"] for each in told),
        "attempts of the runs": dict(answers),
        "attempts of the pages": dict(asked),
        "seconds": round(took),
        "server's log says locked": log.read_text(errors="replace").count("database is locked"),
    }


class _Started:
    """Starts processes that end with the measurement."""

    def __init__(self, environment: dict[str, str], log: Path, opened: ExitStack) -> None:
        self._environment, self._log, self._opened = environment, log, opened

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with open(self._log, "ab") as log:
            made = subprocess.Popen([sys.executable, *words], env=self._environment, stdout=log, stderr=log)
        self._opened.callback(made.wait)
        self._opened.callback(made.terminate)
        return made


def _look(url: str, over: threading.Event, asked: Counter[str]) -> None:
    """Ask again and again for what the pages of runs, of one run, and of its artifacts ask for."""
    newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 25}
    with httpx.Client(base_url=url, timeout=90) as client:
        while not over.wait(0.5):
            with suppress(httpx.TransportError):
                rows = client.post("/flow_runs/filter", json=newest)
                known = [row["id"] for row in rows.json()] if rows.is_success else []
                of_run = {"flow_run_id": {"any_": known}}
                answers = [
                    rows,
                    client.post("/flow_runs/count", json={}),
                    client.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": known}}}),
                    client.post("/logs/filter", json={"logs": of_run, "limit": 200}),
                    client.post("/artifacts/filter", json={"artifacts": of_run, "limit": 200}),
                ]
                asked["requests"] += len(answers)
                asked["refused"] += sum(not answer.is_success for answer in answers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
