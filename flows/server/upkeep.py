"""`python -m flows.server.upkeep`: ends runs that nobody works on any more, and skips late ones but the newest.

Once, or every minute with `--every 60`; `make ui` does it before its worker starts and every minute from then on. The
automation "zerovl: lost runs" hears heartbeats stop while the server lives; this asks the server, and so it also finds
what died while the server was away, and runs that died before they began and so never had a heartbeat.

One look finds late runs and those that nobody began. That a run is silent, or a slot taken by none, shows in several.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import psutil
from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import (
    EventFilter,
    EventIDFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventResourceFilter,
)
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings
from prefect.states import Cancelled, Crashed

from flows.command import TAG
from flows.endings import SKIPPED
from flows.runtime.liveness import HEARTBEAT, LOST
from flows.server import containers

EVERY = 60.0  # seconds between two looks
_NOTHING = (
    "no run is late, and none was left by a worker before it began; "
    f"silent runs and slots that none holds are found by several looks: --every {EVERY:.0f}"
)
_WORKED_ON = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_WORKER_GONE = "its worker is gone"
_NEVER_BEGAN = "nobody began it for {minutes:.0f} minutes: {why}"


@dataclass(frozen=True)
class Patience:
    """How long each may last before it counts as lost."""

    pending: timedelta = timedelta(minutes=3)  # from a worker's promise to the beginning: Prefect is imported in it
    # The same while a worker that lives watches over its container: a node, and an image of several gigabytes.
    container: timedelta = timedelta(minutes=40)
    silent: timedelta = timedelta(minutes=4)  # since the last of the heartbeats, which come every 30 s
    late: timedelta = timedelta(minutes=1)  # a worker takes what is due within seconds
    away: timedelta = timedelta(minutes=2)  # that a server was back for before silence means something


class Upkeep:
    """Looks at the runs of a server again and again; what it does is in the lines that it returns."""

    def __init__(self, client: SyncPrefectClient, patience: Patience = Patience()) -> None:
        self._client = client
        self._patience = patience
        self._reached_since: datetime | None = None
        self._too_many: dict[str, int] = {}

    def look(self) -> list[str]:
        """Look once; returns one line for each thing that was done.

        Raises:
            httpx.HTTPError: the server cannot be reached.
        """
        now = datetime.now(UTC)
        try:
            worked_on = self._runs(*_WORKED_ON)
            self._reached_since = self._reached_since or now
            lines = self._skip_late(now) + self._end_lost(worked_on, now)
            return lines + self._free_slots()
        except httpx.HTTPError:
            self._reached_since = None  # it may be away for long, and runs cannot send their heartbeats meanwhile
            raise

    def _runs(self, *types: StateType) -> list[FlowRun]:
        """Return our runs in these states, the first due ones first."""
        wanted = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[TAG]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
        )
        return self._client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200)

    def _skip_late(self, now: datetime) -> list[str]:
        """Of the runs of a schedule that are due and never began, leave the newest."""
        # By schedule too: another one of the same deployment may have other parameters.
        due: dict[tuple[UUID | None, UUID | None], list[FlowRun]] = defaultdict(list)
        for run in self._runs(StateType.SCHEDULED):
            late = run.expected_start_time and run.expected_start_time < now - self._patience.late
            if run.auto_scheduled and not run.run_count and late:
                due[run.deployment_id, run.created_by.id if run.created_by else None].append(run)
        lines = []
        for runs in due.values():
            *skipped, newest = runs
            for run in skipped:
                stands = f"{newest.name}, due at {_time(newest)}, stands for it"
                why = f"was due at {_time(run)}, and never began; {stands}"
                self._client.set_flow_run_state(run.id, Cancelled(name=SKIPPED, message=why))
                lines.append(f"run {run.name} is skipped: it {why}")
        return lines

    def _end_lost(self, runs: list[FlowRun], now: datetime) -> list[str]:
        alive, lines = local_runs(), []
        in_containers = containers.pools_of_containers(self._client)
        for run in runs:
            state = run.state
            if state is None or str(run.id) in alive:
                continue
            quiet = now - state.timestamp
            if state.is_pending():
                if quiet <= self._patience.pending:
                    continue
                cause = _WORKER_GONE
                if run.work_pool_name in in_containers and self._watched(run, now):
                    if quiet <= self._patience.container:
                        continue
                    cause = "its container never started"
                why = _NEVER_BEGAN.format(minutes=quiet.total_seconds() / 60, why=cause)
                self._send_again(state)
                self._client.set_flow_run_state(run.id, Crashed(message=why))
                lines.append(f"run {run.name} is lost: {why}")
            elif self._silent(run.id, quiet, now):
                self._send_again(state)
                # With this message a run that lives after all takes its state back.
                end: State[Any] = Cancelled(message=LOST) if state.is_cancelling() else Crashed(message=LOST)
                self._client.set_flow_run_state(run.id, end, force=True)
                lines.append(f"run {run.name} is lost: {LOST}")
        return lines

    def _send_again(self, state: State[Any]) -> None:
        """Send the event of a state from before the server was reached, before another state follows it.

        Automations get a state that follows within five minutes only after the event before, or 15 minutes later, and
        a server has in its memory alone which events it had: of one that was killed, people would be told so late. The
        server keeps an event that it has already once, by its id.
        """
        assert self._reached_since is not None
        if state.timestamp >= self._reached_since:
            return
        for event in self._client.read_events(EventFilter(id=EventIDFilter(id=[state.id])), limit=1).events:
            first = event.model_copy(update={"follows": None})  # it would wait for the one before it
            self._client.request("POST", "/events", json=[first.model_dump(mode="json", exclude={"received"})])

    def _watched(self, run: FlowRun, now: datetime) -> bool:
        """Return whether a worker may still watch over the container of a run."""
        assert self._reached_since is not None
        if now - self._reached_since < self._patience.silent:
            return True  # while the server was away no worker could send its heartbeat
        return containers.is_watched(self._client, run, now - self._patience.silent)

    def _silent(self, run: UUID, quiet: timedelta, now: datetime) -> bool:
        """Return whether a run has sent no heartbeat for long, and the server was there to hear it."""
        assert self._reached_since is not None
        if quiet <= self._patience.silent or now - self._reached_since < self._patience.away:
            return False
        wanted = EventFilter(
            occurred=EventOccurredFilter.model_validate({"since": now - self._patience.silent}),
            event=EventNameFilter(name=[HEARTBEAT]),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
        )
        return not self._client.read_events(wanted, limit=1).events

    def _free_slots(self) -> list[str]:
        """Give back slots of deployments that no run holds, where two looks find the same."""
        running: dict[UUID | None, int] = defaultdict(int)
        for run in self._runs(*_WORKED_ON):
            running[run.deployment_id] += 1
        too_many, lines = {}, []
        for deployment in self._client.read_deployments():
            limit = deployment.global_concurrency_limit
            if limit is None or TAG not in deployment.tags or limit.active_slots <= running[deployment.id]:
                continue
            too_many[limit.name] = limit.active_slots
            if self._too_many.get(limit.name) == limit.active_slots:
                held = running[deployment.id]
                update = GlobalConcurrencyLimitUpdate(active_slots=held)
                self._client.update_global_concurrency_limit(limit.name, update)
                lines.append(f"deployment {deployment.name}: {limit.active_slots} slots were taken, {held} by runs")
        self._too_many = too_many
        return lines


def local_runs() -> set[str]:
    """Return the ids of flow runs of workers that have a process on this machine."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and (run := process.environ().get("PREFECT__FLOW_RUN_ID")):
                found.add(run)
    return found


def _time(run: FlowRun) -> str:
    return f"{run.expected_start_time:%Y-%m-%d %H:%M} UTC"


def go_on(every: float) -> None:
    """Look for ever, with so many seconds between; a server that is away is looked at again."""
    # No retries of the client's own: the next look comes soon enough.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        upkeep, complaint = Upkeep(client), ""
        while True:
            try:
                said, complaint = upkeep.look(), ""
            except Exception as error:  # whatever it is, lost runs must be found after it
                new = f"upkeep: {error or type(error).__name__}"
                said, complaint = ([new] if new != complaint else []), new
            for line in said:
                print(line, flush=True)
            time.sleep(every)


def look_once() -> list[str]:
    """Look once at the server of `PREFECT_API_URL`."""
    with get_client(sync_client=True) as client:
        return Upkeep(client).look()


def main() -> None:
    """Look once or for ever, and print what was done."""
    parser = argparse.ArgumentParser(prog="python -m flows.server.upkeep", description=__doc__)
    parser.add_argument("--every", type=float, metavar="SECONDS", help="look again and again; without, once")
    arguments = parser.parse_args()
    if not get_current_settings().api.url:
        sys.exit("PREFECT_API_URL is not set; `make ui` starts a server and says what to export")
    if arguments.every is not None:
        if arguments.every < 1:
            parser.error(f"--every {arguments.every:g}: at least 1 second")
        go_on(arguments.every)
    try:
        lines = look_once()
    except httpx.HTTPError as error:
        sys.exit(
            f"no Prefect server at {get_current_settings().api.url} ({error or type(error).__name__}); start one with "
            "`make ui`, or set PREFECT_API_URL"
        )
    print("\n".join(lines) if lines else _NOTHING)


if __name__ == "__main__":
    main()
