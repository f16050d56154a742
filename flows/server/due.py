"""A run of a schedule that is due within seconds is let pass before deployments are applied.

Prefect gives a deployment that is applied new schedules, and those make their runs again from that moment on: one that
a worker holds already, seconds before it is due, would be there twice; one that nobody holds might be made too late.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterExpectedStartTime, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun

from flows.command import TAG

_BEFORE = timedelta(seconds=30)  # a worker takes a run 10 s before it is due; applying takes some seconds
_AFTER = timedelta(seconds=5)  # for clocks that differ
_LONGEST = timedelta(seconds=90)  # for a schedule of seconds, of which some run is always due


def let_pass(client: SyncPrefectClient, say: Callable[[str], None] = print) -> None:
    """Wait until no run of our schedules is due within seconds, for a minute and a half at most.

    Args:
        say: hears once what is waited for.
    """
    began, told = datetime.now(UTC), False
    while run := next_due(client, datetime.now(UTC)):
        if datetime.now(UTC) > began + _LONGEST:
            return
        if not told:
            say(f"run {run.name} is due at {run.expected_start_time:%H:%M:%S} UTC: waiting until that has passed")
            told = True
        time.sleep(1.0)


def next_due(client: SyncPrefectClient, now: datetime) -> FlowRun | None:
    """Return a run that a schedule made and that is due within seconds of `now`; None where there is none."""
    around = {"after_": now - _AFTER, "before_": now + _BEFORE}
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[TAG]),
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate(around),
    )
    return next((run for run in client.read_flow_runs(flow_run_filter=wanted) if run.auto_scheduled), None)
