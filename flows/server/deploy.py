"""`make deploy`: work pool, deployments of prefect.yaml, automations for lost runs and notices; says what changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings

from flows.command import TAG
from flows.runtime.liveness import HEARTBEAT, LOST
from flows.runtime.paths import STATE_VARIABLE, Paths
from flows.server import due, notices
from flows.server.automations import LOST_RUNS, one_of_each, put_automation, read_automations
from flows.server.deployed import Deployed, unknown
from zerovl.files import lock, try_lock

POOL = "zerovl"
# Prefect's own command, which reads prefect.yaml.
_DEPLOY = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml")
_SILENCE = timedelta(seconds=90)  # three heartbeats, see PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml
_COMPARED = (
    "description",
    "entrypoint",
    "parameters",
    "tags",
    "job_variables",
    "pull_steps",
    "work_pool_name",
    "work_queue_name",
)


def deploy(paths: Paths) -> list[str]:
    """Apply everything to the server of `PREFECT_API_URL`; returns one line a change.

    One at a time of those whose state lies in one folder; it waits for another.

    Raises:
        SystemExit: the server cannot be reached, or refuses the deployments.
    """
    if not get_current_settings().api.url:
        sys.exit("PREFECT_API_URL is not set; `make ui` starts a server and says what to export")
    with _alone(paths), get_client(sync_client=True) as client:
        try:
            client.hello().raise_for_status()
        except httpx.HTTPError as error:
            sys.exit(
                f"no Prefect server at {client.api_url} ({error or type(error).__name__}); start one with `make ui`, "
                "or set PREFECT_API_URL (and PREFECT_API_AUTH_STRING where it has a password)"
            )
        changes = _pool(client)
        before, (automations, healed) = snapshot(client), one_of_each(client)
        changes += healed
        last = Deployed.read(client)
        edited = last.edited(before) if last else {}
        if last and last.covers(paths, before):
            changes += [f"deployment {name}: {', '.join(keys)} kept as edited" for name, keys in edited.items()]
        else:
            due.let_pass(client)
            _apply(paths)
            _keep_paused(client, before, automations)
            after = snapshot(client)
            Deployed.now(paths, after).write(client)
            changes += overwritten("what someone had edited", edited, before, after)
            changes += overwritten("what someone may have edited", unknown(last, before), before, after)
            changes += differences("deployment", before, after)
        _mark_lost_runs(client, automations.get(LOST_RUNS))
        notices.apply(client, automations)
        made, healed = one_of_each(client)  # again: one on another machine may have been at it meanwhile
        return changes + differences("automation", _described(automations), _described(made)) + healed


@contextmanager
def _alone(paths: Paths) -> Iterator[None]:
    """Hold the folder of the flows' state, so that two deploys do not each make what neither finds there."""
    try:
        paths.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"{paths.state}: {error.strerror}; {STATE_VARIABLE} names another folder for what the flows keep")
    descriptor = os.open(paths.state, os.O_RDONLY)
    try:
        if not try_lock(descriptor, paths.state):
            print(f"waiting for another `make deploy`, which holds the lock of {paths.state}", flush=True)
            lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def snapshot(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    """Return what is compared of each deployment, by FLOW/NAME."""
    found = {}
    for name, deployment in _deployments(client).items():
        values = {name: getattr(deployment, name) for name in _COMPARED}
        values["schedules"] = {
            str(each.slug): {"active": each.active, **each.schedule.model_dump(exclude={"anchor_date"})}
            for each in deployment.schedules
        }
        limit = deployment.global_concurrency_limit
        values["concurrency"] = (limit.limit if limit else None, deployment.concurrency_options)
        found[name] = values
    return found


def _deployments(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """Return all deployments of the server by FLOW/NAME."""
    flows = {flow.id: flow.name for flow in client.read_flows()}
    return {f"{flows.get(each.flow_id, '?')}/{each.name}": each for each in client.read_deployments()}


def differences(kind: str, before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """Return one line for each that is new, gone, or differs."""
    lines = [f"{kind} {name}: created" for name in after if name not in before]
    lines += [f"{kind} {name}: removed" for name in before if name not in after]
    for name in after.keys() & before.keys():
        changed = [key for key, value in after[name].items() if before[name][key] != value]
        if changed:
            lines.append(f"{kind} {name}: changed {', '.join(changed)}")
    return sorted(lines)


def overwritten(
    what: str, fields: dict[str, list[str]], before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]
) -> list[str]:
    """Return one line for each of these fields that prefect.yaml has set to something else, with its value before.

    Args:
        what: they are, for people.
    """
    return [
        f"deployment {name}: overwritten {what}: {key} = {before[name][key]}"
        for name, keys in fields.items()
        for key in keys
        if name in after and before[name][key] != after[name][key]
    ]


def _pool(client: SyncPrefectClient) -> list[str]:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:  # made meanwhile by another, from another machine
            return []
        return [f"work pool {POOL}: created"]
    return []


def _apply(paths: Paths) -> None:
    done = subprocess.run(
        _DEPLOY,
        cwd=paths.root,
        env={**os.environ, "ZEROVL_ROOT": str(paths.root)},  # for the templates of prefect.yaml
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{paths.root / 'prefect.yaml'}: Prefect refused it:\n{done.stdout}\n{done.stderr}")


def _described(automations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what is compared: not the ids, which are new each time, nor an order, which sets lack."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in sorted(value.items()) if key not in ("id", "deployment_id")}
        return sorted((plain(each) for each in value), key=str) if isinstance(value, list) else value

    return {
        name: {key: plain(automation[key]) for key in ("description", "enabled", "trigger", "actions")}
        for name, automation in automations.items()
    }


def _keep_paused(
    client: SyncPrefectClient, before: dict[str, dict[str, Any]], automations: dict[str, dict[str, Any]]
) -> None:
    """Switch off again what someone switched off in the UI; Prefect's deployment switches all on."""
    for name, now in _deployments(client).items():
        for schedule in now.schedules:
            known = before.get(name, {}).get("schedules", {}).get(str(schedule.slug), {"active": True})
            if not known["active"] and schedule.active:
                client.update_deployment_schedule(now.id, schedule.id, active=False)
    for automation in read_automations(client):
        if automation["enabled"] and not automations.get(automation["name"], {"enabled": True})["enabled"]:
            client.request("PATCH", "/automations/{id}", path_params={"id": automation["id"]}, json={"enabled": False})


def _mark_lost_runs(client: SyncPrefectClient, present: dict[str, Any] | None) -> None:
    """Apply the automation that marks a run of ours as crashed: one whose heartbeats stop before it has ended."""
    wanted = Automation(
        name=LOST_RUNS,
        description="Marks a run as crashed when its process has been silent for 90 s",
        enabled=present["enabled"] if present else True,
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in notices.ENDS)},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=_SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=LOST)],
    )
    put_automation(client, wanted, present)


def main() -> None:
    """Apply everything and print what changed."""
    changes = deploy(Paths.here())
    print("\n".join(changes) if changes else "deployments are up to date, nothing changed")


if __name__ == "__main__":
    main()
