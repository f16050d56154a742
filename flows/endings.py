"""How a retraining ends where it ends otherwise than others: states that the automations for notices wait for."""

from __future__ import annotations

from itertools import takewhile
from typing import Any
from uuid import UUID

import httpx
from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging import get_run_logger
from prefect.states import Completed

NOTHING_NEW = "NothingNew"
STILL_NOTHING_NEW = "StillNothingNew"
REFUSED = "Refused"
TIMES_IN_A_ROW = 3  # that nothing new is worth a notice


def nothing_new(known: str, run: str) -> State[Any]:
    """Return the end of a run that found nothing new; every third in a row of a deployment has a name of its own.

    The automation "zerovl: notice: nothing new" waits for that name.
    """
    try:
        with get_client(sync_client=True) as client:
            before = nothing_new_before(client, UUID(run))
    except httpx.HTTPError as error:  # it is for a notice only
        get_run_logger().warning("how many runs before found nothing new: %s", error or type(error).__name__)
        before = 0
    if (before + 1) % TIMES_IN_A_ROW:
        return Completed(name=NOTHING_NEW, message=known)
    return Completed(name=STILL_NOTHING_NEW, message=f"{known}; {before + 1} runs in a row found nothing new")


def nothing_new_before(client: SyncPrefectClient, run: UUID) -> int:
    """Return how many of the last runs of a run's deployment, one after the other, found nothing new."""
    deployment = client.read_flow_run(run).deployment_id
    if deployment is None:
        return 0
    ended = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES))),
    )
    last = client.read_flow_runs(flow_run_filter=ended, sort=FlowRunSort.END_TIME_DESC, limit=100)
    return len(list(takewhile(lambda each: each.state_name in (NOTHING_NEW, STILL_NOTHING_NEW), last)))


def refused(release: dict[str, Any] | None) -> State[Any] | None:
    """Return the end of a run whose model the gate did not let through; None for any other."""
    if release is None or not release["alias"] or release["promoted"]:
        return None
    broken = [reason["rule"] for reason in release["verdict"]["reasons"] if not reason["passed"]]
    name = f"{release['name']}@{release['version']}"
    return Completed(
        name=REFUSED, message=f"the gate refused {name} ({', '.join(broken)}): {release['alias']} stays where it is"
    )
