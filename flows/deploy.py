"""`make deploy`: work pool, deployments of prefect.yaml and the automation for lost runs; says what changed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any, cast

import httpx
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.home import Home

POOL = "zerovl"
LOST_RUNS = "zerovl: lost runs"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_SILENCE = timedelta(seconds=90)  # three beats, see PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml
_ENDS = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled", "NothingNew")]
_COMPARED = ("description", "entrypoint", "parameters", "tags", "job_variables", "work_pool_name", "pull_steps")


def deploy(home: Home) -> list[str]:
    """Apply everything to the server of `PREFECT_API_URL`; returns one line a change.

    Raises:
        SystemExit: the server cannot be reached, or refuses the deployments.
    """
    with get_client(sync_client=True) as client:
        try:
            client.hello().raise_for_status()
        except httpx.HTTPError as error:
            sys.exit(
                f"no Prefect server at {client.api_url} ({error or type(error).__name__}); start one with `make ui`, "
                "or set PREFECT_API_URL (and PREFECT_API_AUTH_STRING where it has a password)"
            )
        changes = _pool(client)
        before = snapshot(client)
        _apply(home)
        changes += differences(before, snapshot(client))
    return changes + _automation()


def snapshot(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    """What is compared of each deployment, by FLOW/NAME."""
    flows = {flow.id: flow.name for flow in client.read_flows()}
    found = {}
    for deployment in client.read_deployments():
        values = {name: getattr(deployment, name) for name in _COMPARED}
        values["schedules"] = [
            (each.slug, each.active, str(each.schedule.model_dump(exclude={"anchor_date"})))
            for each in deployment.schedules
        ]
        limit = deployment.global_concurrency_limit
        values["concurrency limit"] = limit.limit if limit else None
        found[f"{flows.get(deployment.flow_id, '?')}/{deployment.name}"] = values
    return found


def differences(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each deployment that is new or differs."""
    lines = [f"deployment {name}: created" for name in after if name not in before]
    for name in after.keys() & before.keys():
        changed = [key for key, value in after[name].items() if before[name][key] != value]
        if changed:
            lines.append(f"deployment {name}: changed {', '.join(changed)}")
    return sorted(lines)


def _pool(client: SyncPrefectClient) -> list[str]:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        return [f"work pool {POOL}: created"]
    return []


def _apply(home: Home) -> None:
    # Prefect's own command reads prefect.yaml; called here so that its templates see ZEROVL_ROOT.
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml"],
        cwd=home.root,
        env={**os.environ, "ZEROVL_ROOT": str(home.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{home.root / 'prefect.yaml'}: Prefect refused it:\n{done.stdout}\n{done.stderr}")


def _automation() -> list[str]:
    """A run that was beating and falls silent without having ended is marked as crashed."""
    wanted = Automation(
        name=LOST_RUNS,
        description="Marks a run as crashed when its process has been silent for 90 s",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_ENDS},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=_SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message="no sign of life from its process for 90 s"
            )
        ],
    )
    # `cast`: typed as coroutines, which they are in an event loop only.
    try:
        cast(Any, Automation).read(name=LOST_RUNS)
    except ValueError:
        cast(Any, wanted).create()
        return [f"automation {LOST_RUNS!r}: created"]
    return []


def main() -> None:
    changes = deploy(Home.here())
    print("\n".join(changes) if changes else "deployments are up to date, nothing changed")


if __name__ == "__main__":
    main()
