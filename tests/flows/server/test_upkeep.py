"""Runs that nobody works on are ended and late ones skipped; a run that lives is left alone."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.events import Event
from prefect.server.events.ordering import EventArrivedEarly
from prefect.server.events.ordering.memory import CausalOrdering
from prefect.server.events.schemas.events import Event as ServerEvent
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.states import Cancelling, Pending, Running, Scheduled, State
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from flows.runtime.liveness import LOST
from flows.server import upkeep
from flows.server.upkeep import Upkeep

NOW = datetime.now(UTC)
RETRAIN = uuid.UUID(int=1)


class Server:
    """What upkeep asks of Prefect's client; `slots` are those of a deployment with a limit."""

    def __init__(self, runs: list[SimpleNamespace], slots: int = 0) -> None:
        self.runs, self.slots, self.away = runs, slots, False
        self.heartbeats: set[uuid.UUID] = set()
        self.events: list[Event] = []
        self.workers: dict[str, float] = {}  # of the pool of containers: minutes since the last heartbeat
        self.began: list[tuple[str, float]] = []  # workers that began, so many minutes ago
        self.got: list[tuple[str, Any]] = []  # states that were set and events that came, in order

    def read_flow_runs(self, *, flow_run_filter: Any, **_: Any) -> list[SimpleNamespace]:
        if self.away:
            raise httpx.ConnectError("away")
        assert flow_run_filter.tags.all_ == ["zerovl"]
        found = [run for run in self.runs if run.state.type in flow_run_filter.state.type.any_]
        return sorted(found, key=lambda run: run.expected_start_time)

    def set_flow_run_state(self, run: uuid.UUID, state: State[Any], force: bool = False) -> None:
        (found,) = (each for each in self.runs if each.id == run)
        found.state = state
        self.got.append(("state", state.type.value))

    def request(self, method: str, path: str, json: Any) -> None:
        assert (method, path) == ("POST", "/events")
        self.got += [("event", event) for event in json]

    def read_events(self, wanted: Any, limit: int) -> SimpleNamespace:
        if wanted.id.id:
            return SimpleNamespace(events=[event for event in self.events if event.id in wanted.id.id])
        if wanted.event.name == ["prefect.worker.started"]:
            resource = {"prefect.resource.name": "w", "prefect.worker-type": "kubernetes"}
            assert dict(wanted.resource.labels.items()) == {key: [value] for key, value in resource.items()}
            since = wanted.occurred.since
            return SimpleNamespace(
                events=[name for name, ago in self.began if name == "w" and NOW - timedelta(minutes=ago) >= since]
            )
        (resource,) = wanted.resource.id
        assert wanted.event.name == ["prefect.flow-run.heartbeat"]
        return SimpleNamespace(events=[each for each in self.heartbeats if resource == f"prefect.flow-run.{each}"])

    def read_work_pools(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="zerovl", type="process"), SimpleNamespace(name="cluster", type="kubernetes")]

    def read_workers_for_work_pool(self, pool: str, wanted: Any) -> list[SimpleNamespace]:
        assert pool == "cluster"
        since = wanted.last_heartbeat_time.after_
        return [
            SimpleNamespace(name=name) for name, ago in self.workers.items() if NOW - timedelta(minutes=ago) >= since
        ]

    def read_deployments(self) -> list[SimpleNamespace]:
        limit = SimpleNamespace(name="deployment:retrain", active_slots=self.slots)
        with_limit = SimpleNamespace(id=RETRAIN, name="retrain-weekly", tags=["zerovl"], global_concurrency_limit=limit)
        without = SimpleNamespace(id=uuid.UUID(int=2), name="train", tags=["zerovl"], global_concurrency_limit=None)
        return [with_limit, without]

    def update_global_concurrency_limit(self, name: str, update: Any) -> None:
        assert name == "deployment:retrain"
        self.slots = update.active_slots


def run(name: str, state: State[Any], minutes: float, **more: Any) -> SimpleNamespace:
    """A run that was due, and has been in its state, for so many minutes."""
    state.timestamp = NOW - timedelta(minutes=minutes)
    values = {"auto_scheduled": False, "run_count": 0, "deployment_id": RETRAIN, "id": uuid.uuid4(), **more}
    values = {"created_by": None, "work_pool_name": "zerovl", "labels": {}, **values}
    return SimpleNamespace(name=name, state=state, expected_start_time=state.timestamp, **values)


@pytest.fixture(autouse=True)
def nothing_runs_here(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    alive: set[str] = set()
    monkeypatch.setattr(upkeep, "local_runs", lambda: alive)
    return alive


def look(keeper: Upkeep, monkeypatch: pytest.MonkeyPatch, minutes: float = 0.0) -> list[str]:
    """Look, so many minutes from now."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return NOW + timedelta(minutes=minutes)

    monkeypatch.setattr(upkeep, "datetime", Clock)
    return keeper.look()


def test_a_run_that_nobody_began_is_ended_and_its_slot_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    old, fresh = run("old", Pending(), 11), run("fresh", Pending(), 1)
    server = Server([old, fresh], slots=2)
    keeper = Upkeep(server)  # type: ignore[arg-type]
    assert look(keeper, monkeypatch) == ["run old is lost: nobody began it for 11 minutes: its worker is gone"]
    assert (old.state.type, fresh.state.type) == ("CRASHED", "PENDING")
    # The server frees the slot with the state; one that it has lost track of is counted again at the next look.
    assert server.slots == 2
    assert look(keeper, monkeypatch, 1) == ["deployment retrain-weekly: 2 slots were taken, 1 by runs"]
    assert server.slots == 1
    assert look(keeper, monkeypatch, 1.5) == []


def test_a_server_that_was_away_gets_the_event_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been killed, and then automations would hear of the end 15 minutes late."""
    here_before, after = run("old", Pending(), 4), run("new", Pending(), -1)
    server = Server([here_before, after])
    for each in server.runs:
        resource = {"prefect.resource.id": f"prefect.flow-run.{each.id}"}
        follows = uuid.uuid4()
        server.events.append(
            Event(id=each.state.id, event="prefect.flow-run.Pending", resource=resource, follows=follows)
        )
    keeper = Upkeep(server)  # type: ignore[arg-type]
    sent = json.loads(server.events[0].model_dump_json()) | {"follows": None}
    look(keeper, monkeypatch)
    assert server.got == [("event", sent), ("state", "CRASHED")]
    asyncio.run(passes_at_once(sent))
    server.got.clear()
    look(keeper, monkeypatch, 5)  # the other became pending since the server was reached
    assert server.got == [("state", "CRASHED")]


async def passes_at_once(sent: dict[str, Any]) -> None:
    """What Prefect's own server does with an event that follows the one that was sent."""
    ordering, passed = CausalOrdering("test_upkeep"), []

    async def handle(event: ReceivedEvent, depth: int = 0) -> None:
        async with ordering.preceding_event_confirmed(handle, event, depth):
            passed.append(event.event)

    end = {**sent, "id": str(uuid.uuid4()), "event": "prefect.flow-run.Crashed", "follows": sent["id"]}
    with pytest.raises(EventArrivedEarly):  # a server that was killed meanwhile
        await handle(ServerEvent.model_validate(end).receive())
    await handle(ServerEvent.model_validate(sent).receive())
    assert passed == ["prefect.flow-run.Pending", "prefect.flow-run.Crashed"]


def in_pod(name: str, minutes: float, worker: str | None = "w") -> SimpleNamespace:
    """A run that is pending until its pod has been started, which its worker waits for."""
    labels = {"prefect.worker.name": worker, "prefect.worker.type": "kubernetes"} if worker else {}
    return run(name, Pending(), minutes, work_pool_name="cluster", labels=labels)


def test_a_pod_has_the_time_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run is pending while the pod waits for a node and its image is pulled; its worker waits for both."""
    pulled, lost, by_hand = in_pod("p", 25), in_pod("l", 36), run("h", Pending(), 4, work_pool_name=None)
    server = Server([pulled, lost, by_hand])
    server.workers, server.began = {"w": -5, "x": 60}, [("w", 37), ("x", 1)]
    keeper = Upkeep(server)  # type: ignore[arg-type]
    assert look(keeper, monkeypatch) == ["run h is lost: nobody began it for 4 minutes: its worker is gone"]
    assert look(keeper, monkeypatch, 5) == [
        "run l is lost: nobody began it for 41 minutes: its container never started",
    ]
    assert [each.state.type for each in (pulled, lost, by_hand)] == ["PENDING", "CRASHED", "CRASHED"]


@pytest.mark.parametrize(
    ("worker", "heartbeats", "began"),
    [
        ("w", {"w": 1, "other": -4}, []),
        ("w", {"other": -4}, []),
        ("w", {"w": -4}, [("w", 1)]),  # under its name, but without the containers of before
        (None, {"w": -4}, []),  # it was killed before it asked for a container
    ],
    ids=["silent", "deleted", "began again", "asked for none"],
)
def test_a_pod_that_no_worker_watches_over_is_lost_in_five_minutes_too(
    worker: str | None, heartbeats: dict[str, float], began: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = in_pod("waits", 2, worker)
    server = Server([waits])
    server.workers, server.began = heartbeats, began
    keeper = Upkeep(server)  # type: ignore[arg-type]
    # A server that has just come back has not heard of the workers that live.
    assert [look(keeper, monkeypatch, minutes) for minutes in (0, 2, 3)] == [[], [], []]
    lines = look(keeper, monkeypatch, 4)
    assert lines == ["run waits is lost: nobody began it for 6 minutes: its worker is gone"]


def test_what_tells_a_worker_is_what_prefects_workers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Server` above imitates it: the labels that a worker gives a run, and the resource of its events."""
    given: dict[str, Any] = {}

    async def update_flow_run_labels(_: uuid.UUID, labels: dict[str, Any]) -> None:
        given.update(labels)

    worker = ProcessWorker(work_pool_name="cluster", name="w")
    monkeypatch.setattr(worker, "_client", SimpleNamespace(update_flow_run_labels=update_flow_run_labels))
    asyncio.run(worker._give_worker_labels_to_flow_run(uuid.uuid4()))
    assert given == in_pod("p", 1).labels | {"prefect.worker.type": "process"}
    said = worker._event_resource()
    assert (said["prefect.resource.name"], said["prefect.worker-type"]) == ("w", "process")
    assert '"prefect.worker.started"' in inspect.getsource(BaseWorker._emit_worker_started_event)


def test_what_has_a_process_here_is_left_alone(monkeypatch: pytest.MonkeyPatch, nothing_runs_here: set[str]) -> None:
    slow, silent = run("slow", Pending(), 30), run("silent", Running(), 600)
    nothing_runs_here |= {str(slow.id), str(silent.id)}
    keeper = Upkeep(Server([slow, silent], slots=2))  # type: ignore[arg-type]
    assert [look(keeper, monkeypatch, minutes) for minutes in (0, 5)] == [[], []]


def test_a_run_without_heartbeats_is_ended_once_the_server_has_been_back_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead, alive, cancelling = run("dead", Running(), 60), run("alive", Running(), 60), run("c", Cancelling(), 60)
    server = Server([dead, alive, cancelling], slots=3)
    server.heartbeats = {alive.id}
    keeper = Upkeep(server)  # type: ignore[arg-type]
    assert look(keeper, monkeypatch) == []
    server.away = True
    with pytest.raises(httpx.ConnectError):
        look(keeper, monkeypatch, 1)
    server.away = False
    assert look(keeper, monkeypatch, 3) == []  # back since now; the time before does not count
    assert look(keeper, monkeypatch, 5) == [f"run dead is lost: {LOST}", f"run c is lost: {LOST}"]
    assert [each.state.type for each in server.runs] == ["CRASHED", "RUNNING", "CANCELLED"]
    assert dead.state.message == LOST  # so that a run that lives after all takes its state back


def test_of_late_runs_the_newest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [run(f"hour-{hours}", Scheduled(), 60 * hours, auto_scheduled=True) for hours in (3, 1, 2)]
    by_hand = run("by-hand", Scheduled(), 300)
    again = run("again", Scheduled(name="AwaitingRetry"), 300, auto_scheduled=True, run_count=1)
    future = run("future", Scheduled(), -60, auto_scheduled=True)
    other = run("other", Scheduled(), 30, auto_scheduled=True, deployment_id=uuid.UUID(int=2))
    server = Server([*late, by_hand, again, future, other])
    lines = look(Upkeep(server), monkeypatch)  # type: ignore[arg-type]
    assert [line.split()[1] for line in lines] == ["hour-3", "hour-2"]
    skipped = [each for each in server.runs if each.state.name == "Skipped"]
    assert {each.name for each in skipped} == {"hour-3", "hour-2"}
    assert {each.state.type for each in skipped} == {"CANCELLED"}
    assert "and never began; hour-1, due at" in skipped[0].state.message


def test_late_runs_of_two_schedules_do_not_stand_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    days, nights = SimpleNamespace(id=uuid.UUID(int=5)), SimpleNamespace(id=uuid.UUID(int=6))
    waiting = Scheduled(name="AwaitingConcurrencySlot")
    late = [
        run("day-1", Scheduled(), 120, auto_scheduled=True, created_by=days),
        run("night-1", waiting, 90, auto_scheduled=True, created_by=nights),
        run("day-2", Scheduled(), 60, auto_scheduled=True, created_by=days),
    ]
    server = Server(late)
    assert [line.split()[1] for line in look(Upkeep(server), monkeypatch)] == ["day-1"]  # type: ignore[arg-type]
    assert [each.state.name for each in late] == ["Skipped", "AwaitingConcurrencySlot", "Scheduled"]


def test_processes_of_runs_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    identity = str(uuid.uuid4())
    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": identity}
    code = "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=-1, stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        assert identity in upkeep.local_runs()
        process.communicate(b"\n")
    assert identity not in upkeep.local_runs()
