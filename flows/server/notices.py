"""Automations that tell people when a scheduled run failed, ended in a way worth a word, or is stuck."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import ActionTypes, RunDeployment, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings
from pydantic import SecretStr

from flows.endings import NOTHING_NEW, REFUSED, RETIRED, SKIPPED, STILL_NOTHING_NEW
from flows.runtime import notice_setting
from flows.server.automations import NOTICE as PREFIX
from flows.server.automations import put_automation, remove

BLOCK = "zerovl-notices"
_DEPLOYMENT = "notify/notify"
_STATED = "{{ flow_run.state.name }}{% if flow_run.state.message %}: {{ flow_run.state.message }}{% endif %}"
# The link is of the UI as `make deploy` reaches it: Prefect's own filter for links takes the server's word, which is
# 127.0.0.1 unless it was told another, and parameters know that filter only once a notification was sent.
_BODY = """{what}

Deployment: {{{{ flow.name }}}}/{{{{ deployment.name }}}}
Run: {{{{ flow_run.name }}}}, {ui}/runs/flow-run/{{{{ flow_run.id }}}}
What to do: {advice}"""
_STATE = "prefect.flow-run."
# Where the server finds SQLite locked, it takes an event again, for the automations that it has fired already too. One
# of another run, or of a state that the run comes to later, is told all the same.
_ONCE_WITHIN = timedelta(minutes=5)
_BETWEEN = re.compile(r"[\s,]+(?=[a-z0-9]+://)", re.I)  # two addresses, as Apprise takes them apart


@dataclass(frozen=True)
class Notice:
    """What people are told of: a state of a scheduled run that came, or the states after one that did not come."""

    name: str
    description: str
    subject: str
    what: str  # happened
    advice: str
    states: tuple[str, ...]
    after: str = ""  # for those that do not come: the state that they are waited for after
    within: timedelta = _ONCE_WITHIN

    def body(self, ui: str) -> str:
        """Return the template of the text: what happened, of which deployment and run, and what to do.

        Args:
            ui: where the UI is, for the link to the run.
        """
        return _BODY.format(what=self.what, ui=ui.rstrip("/"), advice=self.advice)

    def trigger(self) -> EventTrigger:
        """Return what fires it: of runs of the deployments retrain-* and retention, one notice a run."""
        return EventTrigger(
            after={_STATE + self.after} if self.after else set(),
            expect={_STATE + state for state in self.states},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "deployment", "prefect.resource.name": ["retrain-*", "retention"]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive if self.after else Posture.Reactive,
            threshold=1,
            within=self.within,
        )


ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut", NOTHING_NEW, STILL_NOTHING_NEW, REFUSED, RETIRED)
_TAKEN = ("Pending", "Running", "AwaitingConcurrencySlot", SKIPPED, *ENDS)
NOTICES = (
    Notice(
        "failed", "A scheduled run failed, or its process was lost",
        "{{ flow_run.name }} of {{ deployment.name }} failed", _STATED,
        "read the run's log. Once the cause is fixed, run the deployment again: what is finished is not done again, "
        "and a training goes on from its last checkpoint.", ("Failed", "Crashed", "TimedOut"),
    ),
    Notice(
        "refused", "A retraining made a model that the gate did not let through",
        "{{ flow_run.name }} of {{ deployment.name }} was refused by the gate", _STATED,
        'the artifact "summary" of the run has the verdict. The version is kept; python -m flows.promote with '
        "--over-the-gate and --why gives it the alias all the same.", (REFUSED,),
    ),
    Notice(
        "nothing new", "Retrainings found nothing new three times in a row: is new data still coming?",
        "{{ deployment.name }} found nothing new three times in a row", _STATED,
        "see whether new data still arrives where it is imported from. Where none is to come, pause the schedule.",
        (STILL_NOTHING_NEW,),
    ),
    Notice(
        "retired", "Releases were retired, since register.keep does not keep them",
        "{{ flow_run.name }} of {{ deployment.name }} retired releases", _STATED,
        "nothing, where nobody misses them. zerovl registry restore NAME@VERSION brings one back while its files are "
        "there, a week at least.", (RETIRED,),
    ),
    Notice(
        "not started", "A scheduled run is late by 15 minutes: does a worker run?",
        "{{ flow_run.name }} of {{ deployment.name }} is stuck: nobody takes it",
        "It was due at {{ (flow_run.expected_start_time|string)[:16] }} UTC, and no worker has taken it.",
        "start a worker where the GPUs are (make ui, or prefect worker start --pool zerovl), and see that the pool is "
        "not paused.", _TAKEN, "Late", timedelta(minutes=15),
    ),
    Notice(
        "not ended", "A scheduled run has been running for three days",
        "{{ flow_run.name }} of {{ deployment.name }} is stuck: it has run for three days",
        "It began at {{ (flow_run.start_time|string)[:16] }} UTC, and has not ended.",
        "read the run's log. Cancel saves a checkpoint, and the next run goes on from there. A training that is meant "
        "to take so long needs nothing.", ENDS, "Running", timedelta(days=3),
    ),
)  # fmt: skip


def apply(client: SyncPrefectClient, present: Mapping[str, dict[str, Any]]) -> None:
    """Make the automations what the setting asks for; leave them alone where it asks for nothing.

    Args:
        present: the automations of the server by name.
    """
    if not notice_setting.value():
        return
    old = {name: each for name, each in present.items() if name.startswith(PREFIX)}
    if notice_setting.value() == notice_setting.OFF:
        for each in old.values():
            remove(client, each)
        return
    channel = _Block(client) if notice_setting.address() else _Flow(client)
    for notice in NOTICES:
        name = PREFIX + notice.name
        wanted = Automation(
            name=name,
            description=notice.description,
            enabled=old[name]["enabled"] if name in old else True,
            trigger=notice.trigger(),
            actions=[channel.action(notice)],
        )
        put_automation(client, wanted, old.get(name))


class _Block:
    """The server tells people itself, through Prefect's block for Apprise."""

    def __init__(self, client: SyncPrefectClient) -> None:
        address = notice_setting.address()
        assert address is not None
        self._id = save_block(address)

    def action(self, notice: Notice) -> ActionTypes:
        """Return the action for a notice."""
        return SendNotification(block_document_id=self._id, subject=notice.subject, body=notice.body(_ui()))


class _Flow:
    """The worker runs the command, as a run of the flow `notify`."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._id = client.read_deployment_by_name(_DEPLOYMENT).id

    def action(self, notice: Notice) -> ActionTypes:
        """Return the action for a notice."""
        parameters = {
            name: {"__prefect_kind": "jinja", "template": template}
            for name, template in (("subject", notice.subject), ("text", notice.body(_ui())))
        }
        return RunDeployment(source="selected", deployment_id=self._id, parameters=parameters)


def _ui() -> str:
    """Return where the UI is: `PREFECT_UI_URL`, or what belongs to `PREFECT_API_URL`."""
    return get_current_settings().ui_url or ""


def save_block(address: str) -> UUID:
    """Keep the address on the server, as a secret of the block "zerovl-notices"; returns the block's id.

    Args:
        address: or several, with commas or spaces between.

    Raises:
        SystemExit: Apprise does not know such an address.
    """
    import apprise  # comes with Prefect; needed here alone

    for each in _BETWEEN.split(address):
        if apprise.Apprise.instantiate(each) is None:
            kind = each.partition("://")[0]
            sys.exit(
                f"{notice_setting.VARIABLE}: Apprise does not understand this {kind}:// address; "
                "https://appriseit.com/services/ has their forms"
            )
    # Prefect's block for Slack hands whatever address it has to Apprise; there is none without a service's name.
    saved = SlackWebhook(url=SecretStr(address)).save(BLOCK, overwrite=True)
    assert isinstance(saved, UUID)  # and no coroutine, which Prefect returns where an event loop runs
    return saved
