"""Prefect's server as its UI asks it, over HTTP; a server that is busy is asked again."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
DONE = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_BUSY_SECONDS = 120.0  # SQLite refuses requests while others write
# Who waits for so long has found a fault, also where a dozen others compute on two cores.
PATIENCE = 800.0  # seconds


def wait_for(what: str, look: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Look until there is something; fails with `what` after so many seconds."""
    began = time.monotonic()
    while not (found := look()):
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(_pause(waited))
    return found


def _pause(waited: float) -> float:
    """Seconds until the next look: a server that is asked three times a second is busy with little else."""
    return min(0.3 + waited / 20.0, 2.0)


class PrefectApi:
    """The API of the server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        # One for all requests: what it reads of certificates when it is made costs more CPU time than ten of them. Each
        # has a connection of its own, as the server may be killed between two.
        self.client = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))

    def healthy(self) -> bool:
        with suppress(httpx.HTTPError):
            return self.client.get(f"{self.url}/api/health", timeout=5).status_code == 200
        return False

    def api(self, method: str, path: str, content: Any = None) -> Any:
        """The answer of the server; asked again where it says that it is busy or does not answer."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                answer = self.client.request(method, f"{self.url}/api{path}", json=content)
                busy = answer.status_code == 503 or "database is locked" in answer.text
            except httpx.TransportError:
                busy = True
                if time.monotonic() > deadline:
                    raise
            if not busy or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a deployment; a request that is sent twice starts one run."""
        found = self.api("GET", f"/deployments/name/{deployment}")
        content = {"parameters": parameters, "idempotency_key": uuid.uuid4().hex}
        return str(self.api("POST", f"/deployments/{found['id']}/create_flow_run", content)["id"])

    def cancel(self, run: str) -> None:
        """What the Cancel button does."""
        self.api("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.api("GET", f"/flow_runs/{run}")["state"]
        return state

    def states_of(self, run: str) -> list[str]:
        """Names of all states that a run has had."""
        return [state["name"] for state in self.api("GET", f"/flow_run_states/?flow_run_id={run}")]

    def name(self, run: str) -> str:
        return str(self.api("GET", f"/flow_runs/{run}")["name"])

    def runs_of(self, flow: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.api("POST", "/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
        return rows

    def planned(self) -> dict[str, str]:
        """Runs that schedules have made and that nobody has begun: when they are due, by id."""
        rows = self.api("POST", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        return {row["id"]: row["expected_start_time"] for row in rows if row["auto_scheduled"]}

    def wait(self, run: str) -> dict[str, Any]:
        """Until the run is at its end; returns its last state."""

        def ended() -> dict[str, Any] | None:
            state = self.state(run)
            return state if state["type"] in DONE else None

        return wait_for(f"an end of run {run}", ended)

    def wait_while(self, run: str, what: str, look: Callable[[], T | None]) -> T:
        """Look until there is something; fails at once where the run ends before."""

        def unless_ended() -> T | None:
            state = self.state(run)
            assert state["type"] not in DONE or look(), f"{state['name']} before {what}: {state['message']}"
            return look()

        return wait_for(f"{what} of run {run}", unless_ended)

    def completed(self, run: str) -> None:
        state = self.wait(run)
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
        """Wait for a line of a run's log: lines are sent now and then, so the last ones come after its state."""
        began = time.monotonic()
        while not re.search(pattern, text := self.logs(run)):
            waited = time.monotonic() - began
            assert waited < PATIENCE, f"not within {PATIENCE:.0f} s: {pattern!r} of {self.state(run)}\n{text}"
            time.sleep(_pause(waited))

    def artifacts(self, run: str) -> dict[str, Any]:
        rows = self.api("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        return {row["key"]: row for row in rows if row["key"]}
