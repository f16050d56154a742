"""Automations as the server has them, and as this project wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore

_FIELDS = {"name", "description", "enabled", "trigger", "actions"}


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
