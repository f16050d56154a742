"""Server and worker are killed and back after weeks: a lost run is told of, its slot is free, one late run begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import Event

from flows.runtime import notice_setting
from flows.server import notices
from flows.server.containers import is_watched, pools_of_containers
from flows.server.upkeep import Patience, Upkeep
from tests.support.factory import Factory, kill
from tests.support.prefect_api import wait_for
from tests.support.webhook import receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
RETRAIN = "retrain/retrain-weekly"  # one run at a time


def begin(factory: Factory, run: str) -> dict[str, Any]:
    """What a worker asks for before it starts a run's process; returns the state that the run got."""
    asked = {"state": {"type": "PENDING", "name": "Pending"}}
    state: dict[str, Any] = factory.api("POST", f"/flow_runs/{run}/set_state", asked)["state"]
    return state


def slots(factory: Factory) -> int:
    return int(factory.api("GET", f"/deployments/name/{RETRAIN}")["global_concurrency_limit"]["active_slots"])


def weeks_ago(factory: Factory) -> list[dict[str, Any]]:
    """The runs of three Mondays on which nobody took them, the oldest first."""
    deployment = factory.api("GET", f"/deployments/name/{RETRAIN}")["id"]
    now = datetime.now(UTC)
    between = {"start_time": (now - timedelta(days=21)).isoformat(), "end_time": now.isoformat()}
    factory.api("POST", f"/deployments/{deployment}/schedule", {**between, "min_runs": 3, "max_runs": 3})
    rows = [row for row in factory.runs_of("retrain") if row["expected_start_time"] < now.isoformat()]
    late = [row for row in rows if row["auto_scheduled"] and row["state_type"] == "SCHEDULED"]
    return sorted(late, key=lambda row: str(row["expected_start_time"]))


def automations(factory: Factory) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in factory.api("POST", "/automations/filter", {"limit": 200})}


@pytest.fixture
def told(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a webhook is told, as `make deploy` sets it up."""
    with receiver() as (address, got):
        monkeypatch.setenv(notice_setting.VARIABLE, address)
        factory.command("-m", "flows.server.deploy", **{notice_setting.VARIABLE: address})
        yield got
        for name, each in automations(factory).items():  # nobody listens any more
            if name.startswith(notices.PREFIX):
                factory.api("DELETE", f"/automations/{each['id']}")


def has_event(factory: Factory, state: dict[str, Any]) -> bool:
    """Whether the server has written down the event of a state, which it does a second later."""
    return bool(factory.api("POST", "/events/filter", {"filter": {"id": {"id": [state["id"]]}}})["events"])


def test_people_are_told_a_slot_is_free_again_and_of_the_late_runs_the_newest_begins(
    factory: Factory, told: list[dict[str, Any]]
) -> None:
    assert factory.worker
    assert factory.server
    kill(factory.worker)
    pending, waiting = factory.run(RETRAIN), factory.run(RETRAIN)
    promised = begin(factory, pending)
    assert promised["type"] == "PENDING"
    assert begin(factory, waiting)["name"] == "AwaitingConcurrencySlot"
    wait_for("the event of what the worker promised", lambda: has_event(factory, promised))
    kill(factory.server)
    factory.start_server()
    late = weeks_ago(factory)
    try:
        assert (slots(factory), len(late)) == (1, 3)
        with SyncPrefectClient(f"{factory.url}/api") as client:
            keeper = Upkeep(client, Patience(pending=timedelta(0)))
            said = keeper.look()
            *skipped, newest = late
            due_at = newest["expected_start_time"][:16].replace("T", " ")
            stands = f"{newest['name']}, due at {due_at} UTC, stands for it"
            assert [line.partition(":")[0] for line in said] == [
                *(f"run {each['name']} is skipped" for each in skipped),
                f"run {factory.name(pending)} is lost",
            ]
            message = factory.state(pending)["message"]
            assert re.fullmatch(r"nobody began it for \d+ minutes: its worker is gone", message)
            for each in skipped:
                state = factory.state(each["id"])
                assert (state["type"], state["name"]) == ("CANCELLED", "Skipped")
                assert state["message"].endswith(f"and never began; {stands}")
            assert slots(factory) == 0
            assert keeper.look() == []
        wait_for("word of the lost run", lambda: told)  # at once: Prefect alone would wait for 15 minutes
        assert [each["title"] for each in told] == [f"{factory.name(pending)} of retrain-weekly failed"]
        assert message in told[0]["message"]
        offered = factory.api("POST", "/work_pools/zerovl/get_scheduled_flow_runs", {"limit": 50})
        now = datetime.now(UTC).isoformat()
        due = {each["flow_run"]["id"] for each in offered if each["flow_run"]["expected_start_time"] < now}
        assert due - {waiting} == {newest["id"]}
        assert begin(factory, newest["id"])["type"] == "PENDING"
    finally:
        for run in (pending, waiting, *(each["id"] for each in late)):
            end = {"state": {"type": "CANCELLED", "name": "Cancelled"}}
            factory.api("POST", f"/flow_runs/{run}/set_state", end)
            factory.api("DELETE", f"/flow_runs/{run}")
        factory.start_worker()
    assert slots(factory) == 0


def test_of_a_run_in_a_container_the_server_knows_whether_its_worker_lives(factory: Factory) -> None:
    worker = {"name": "node-1", "type": "kubernetes"}
    flow = factory.api("GET", f"/deployments/name/{RETRAIN}")["flow_id"]
    factory.api("POST", "/work_pools/", {"name": "cluster", "type": worker["type"]})
    in_pods = {"name": "in-pods", "flow_id": flow, "work_pool_name": "cluster"}
    deployment = factory.api("POST", "/deployments/", in_pods)["id"]
    before = datetime.now(UTC) - timedelta(minutes=4)
    run = factory.run("retrain/in-pods")
    try:
        assert begin(factory, run)["type"] == "PENDING"
        with SyncPrefectClient(f"{factory.url}/api") as client:

            def watched(heard_since: datetime = before) -> bool:
                return is_watched(client, client.read_flow_run(run), heard_since)

            assert pools_of_containers(client) == {"cluster"}
            factory.api("POST", "/work_pools/cluster/workers/heartbeat", {"name": worker["name"]})
            assert not watched()  # the worker has not said that it took the run
            labels = {f"prefect.worker.{key}": value for key, value in worker.items()}
            factory.api("PATCH", f"/flow_runs/{run}/labels", labels)
            assert watched()
            assert not watched(datetime.now(UTC) + timedelta(minutes=1))
            for name in ("node-2", worker["name"]):
                resource = {
                    "prefect.resource.id": f"prefect.worker.kubernetes.{name}",
                    "prefect.resource.name": name,
                    "prefect.worker-type": worker["type"],
                }
                event = Event(event="prefect.worker.started", resource=resource)
                factory.api("POST", "/events", [event.model_dump(mode="json")])
                wait_for("the worker's event", lambda event=event: has_event(factory, {"id": str(event.id)}))
                assert watched() == (name == "node-2")
        # A pod that comes up after all begins its run.
        for kind in ("CRASHED", "RUNNING"):
            asked = {"state": {"type": kind, "name": kind.capitalize()}}
            assert factory.api("POST", f"/flow_runs/{run}/set_state", asked)["state"]["type"] == kind
    finally:
        factory.api("DELETE", f"/flow_runs/{run}")
        factory.api("DELETE", f"/deployments/{deployment}")
        factory.api("DELETE", "/work_pools/cluster")
