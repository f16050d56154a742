"""How a run ends where it ends otherwise than others: states that the automations for notices wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging import get_run_logger
from prefect.states import Completed

NOTHING_NEW = "NothingNew"
STILL_NOTHING_NEW = "StillNothingNew"
REFUSED = "Refused"
RETIRED = "Retired"
SKIPPED = "Skipped"  # a late run that a newer one stands for, see flows.server.upkeep
TIMES_IN_A_ROW = 3  # that nothing new is worth a notice


def nothing_new(known: str, run: str) -> State[Any]:
    """Return the end of a run that found nothing new; every third in a row of a deployment has a name of its own.

    The automation "zerovl: notice: nothing new" waits for that name.
    """
    try:
        with get_client(sync_client=True) as client:
            before = last_ends(client, UUID(run))
    except httpx.HTTPError as error:  # it is for a notice only
        get_run_logger().warning("whether runs before found nothing new: %s", error or type(error).__name__)
        before = []
    # The name of the third begins the count again, however long the row is.
    if before != [NOTHING_NEW] * (TIMES_IN_A_ROW - 1):
        return _ended(NOTHING_NEW, known)
    return _ended(STILL_NOTHING_NEW, f"{known}; the last {TIMES_IN_A_ROW} runs found nothing new")


def last_ends(client: SyncPrefectClient, run: UUID) -> list[str | None]:
    """Return how the two last runs of a run's deployment ended, the last one first; skipped ones do not count."""
    deployment = client.read_flow_run(run).deployment_id
    if deployment is None:
        return []
    ended = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)), name=FlowRunFilterStateName(not_any_=[SKIPPED])
        ),
    )
    last = client.read_flow_runs(flow_run_filter=ended, sort=FlowRunSort.END_TIME_DESC, limit=TIMES_IN_A_ROW - 1)
    return [each.state_name for each in last]


def refused(release: dict[str, Any] | None) -> State[Any] | None:
    """Return the end of a run whose model the gate did not let through; None for any other."""
    if release is None or not release["alias"] or release["promoted"] or release.get("moved_away"):
        return None
    broken = [reason["rule"] for reason in release["verdict"]["reasons"] if not reason["passed"]]
    name = f"{release['name']}@{release['version']}"
    return _ended(REFUSED, f"the gate refused {name} ({', '.join(broken)}): {release['alias']} stays where it is")


def moved_away(release: dict[str, Any] | None, run: str) -> State[Any] | None:
    """Return the end of a run whose model had the alias before and lost it, as `nothing_new`; None for any other."""
    away = release.get("moved_away") if release else None  # a run at a commit of before has no such key
    return nothing_new(str(away), run) if away else None


def retired(name: str, versions: set[int], said: Sequence[str]) -> State[Any] | str:
    """Return the end of a run that retired versions; for any other, what its commands said.

    Args:
        said: of each command, whose last line sums it up.
    """
    if not versions:
        return "\n".join(said)
    gone = ", ".join(f"{name}@{number}" for number in sorted(versions))
    return _ended(RETIRED, "; ".join([gone, *(each.splitlines()[-1] for each in said)]))


def _ended(name: str, message: str) -> State[str]:
    # The data are what the flow returns, which a terminal prints.
    return Completed(name=name, message=message, data=f"{name}: {message}")
