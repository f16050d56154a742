"""Automations as the server has them, and as this project wants them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore

PREFIX = "zerovl: "
LOST_RUNS = PREFIX + "lost runs"
NOTICE = PREFIX + "notice: "
_FIELDS = {"name", "description", "enabled", "trigger", "actions"}


def read_automations(client: SyncPrefectClient) -> list[dict[str, Any]]:
    """Return all automations of this project as the server describes them."""
    answer = client.request("POST", "/automations/filter", json={"limit": 200})
    return [each for each in answer.json() if each["name"].startswith(PREFIX)]


def one_of_each(client: SyncPrefectClient) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return this project's automations by name, and a line for each name of which others were removed.

    The server lets any number have one name, and two deploys that begin together on two machines make two of each. Of
    those that a deploy makes itself one of a name is kept; of the triggers of prefect.yaml, which may share a name, one
    of those that wait for the same and do the same.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    # An enabled one first: who switched one of two off wants the other. Then the one that has waited longest. Two
    # deploys that heal at once keep the same one.
    for each in sorted(read_automations(client), key=lambda each: (not each["enabled"], each["created"], each["id"])):
        name = each["name"]
        of_deploy = name == LOST_RUNS or name.startswith(NOTICE)
        found.setdefault((name, "" if of_deploy else _what_it_does(each)), []).append(each)
    said = []
    for (name, _), (_, *others) in found.items():
        for each in others:
            remove(client, each)
        if others:
            said.append(f"automation {name}: was there {len(others) + 1} times, one is kept")
    kept: dict[str, dict[str, Any]] = {}
    for (name, _), (first, *_) in found.items():
        kept.setdefault(name, first)
    return kept, sorted(said)


def _what_it_does(automation: Mapping[str, Any]) -> str:
    """What an automation waits for and does, as text, without the ids of its parts, and in one order."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(each) for key, each in sorted(value.items()) if key != "id"}
        return sorted((plain(each) for each in value), key=str) if isinstance(value, list) else value

    return json.dumps([plain(automation[key]) for key in ("description", "trigger", "actions")], sort_keys=True)


def remove(client: SyncPrefectClient, automation: Mapping[str, Any]) -> None:
    """Remove an automation; nothing where another deploy has removed it meanwhile."""
    try:
        client.request("DELETE", "/automations/{id}", path_params={"id": automation["id"]})
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise


def put_automation(client: SyncPrefectClient, wanted: AutomationCore, present: Mapping[str, Any] | None) -> None:
    """Make an automation, or change it where it differs from what is wanted.

    One that is as wanted is left alone: with every change the server forgets what the trigger was waiting for, as the
    end of a run that began days ago.

    Args:
        present: the automation as the server describes it; None where there is none yet.
    """
    content = wanted.model_dump(mode="json", include=_FIELDS)
    if present is None:
        client.request("POST", "/automations/", json=content)
    elif _compared(AutomationCore.model_validate(present)) != _compared(wanted):
        client.request("PUT", "/automations/{id}", path_params={"id": present["id"]}, json=content)


def _compared(automation: AutomationCore) -> dict[str, Any]:
    # Not as JSON: events are sets, which have no order.
    return automation.model_dump(include=_FIELDS)
