"""What people read: runs of retrainings end or stay on a real server, which `make deploy` has given a webhook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prefect import State
from prefect.client.orchestration import SyncPrefectClient

from flows import endings
from flows.server.notices import PREFIX
from tests.support.factory import Factory
from tests.support.prefect_api import wait_for
from tests.support.webhook import receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
RETRAIN = "retrain/retrain-weekly"
RELEASE = {"name": "zerovl", "version": 4, "alias": "production", "promoted": False}


class Hook:
    """Runs of a retraining that no worker takes, and what the webhook got."""

    def __init__(self, factory: Factory, got: list[dict[str, Any]]) -> None:
        self.factory, self.got = factory, got
        self.runs: list[str] = []

    def start(self) -> str:
        self.runs.append(self.factory.run(RETRAIN))
        return self.runs[-1]

    def end(self, run: str, state: State[Any]) -> None:
        content = {"type": state.type.value, "name": state.name, "message": state.message}
        self.factory.api("POST", f"/flow_runs/{run}/set_state", {"state": content, "force": True})

    def automations(self) -> dict[str, dict[str, Any]]:
        found = self.factory.api("POST", "/automations/filter", {"limit": 200})
        return {each["name"].removeprefix(PREFIX): each for each in found if each["name"].startswith(PREFIX)}

    def hurry(self, notice: str) -> None:
        """Wait for as short as Prefect lets a trigger wait."""
        found = self.automations()[notice]
        found["trigger"]["within"] = 10
        changed = {key: found[key] for key in ("name", "description", "enabled", "trigger", "actions")}
        self.factory.api("PUT", f"/automations/{found['id']}", changed)

    def message(self, title: str) -> str:
        """Wait for the message with this title, which is the same where it comes twice."""
        wait_for(f"{title!r} of {self.got}", lambda: title in [each["title"] for each in self.got])
        (found,) = {str(each["message"]) for each in self.got if each["title"] == title}
        return found

    def text(self, run: str, what: str, advice: str) -> str:
        """What a whole message about a run reads."""
        link = f"{self.factory.url}/runs/flow-run/{run}"
        return f"{what}\n\nDeployment: {RETRAIN}\nRun: {self.factory.name(run)}, {link}\nWhat to do: {advice}"

    def time(self, run: str, key: str) -> str:
        """A time of a run, to the minute."""
        return str(self.factory.api("GET", f"/flow_runs/{run}")[key])[:16].replace("T", " ")


@pytest.fixture
def hook(factory: Factory) -> Iterator[Hook]:
    with receiver() as (address, got):
        said = factory.command("-m", "flows.server.deploy", ZEROVL_NOTIFY=address)
        assert f"automation {PREFIX}failed: changed actions" in said
        made = Hook(factory, got)
        factory.api("PATCH", "/work_pools/zerovl", {"is_paused": True})
        try:
            yield made
        finally:
            for run in made.runs:
                factory.api("DELETE", f"/flow_runs/{run}")
            factory.api("PATCH", "/work_pools/zerovl", {"is_paused": False})
            for each in made.automations().values():  # nobody listens any more
                factory.api("DELETE", f"/automations/{each['id']}")


def test_who_is_told_reads_what_happened_where_and_what_to_do(
    factory: Factory, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_before = factory.refused_events()
    hook.hurry("not ended")
    failed, refused, long = hook.start(), hook.start(), hook.start()
    hook.end(failed, State(type="FAILED", name="Failed", message="git knows no revision 'mian'"))
    hook.end(refused, endings.refused({**RELEASE, "verdict": {"reasons": [{"rule": "min_rsum", "passed": False}]}}))
    hook.end(long, State(type="RUNNING", name="Running"))
    monkeypatch.setattr(endings, "get_client", lambda sync_client: SyncPrefectClient(f"{factory.url}/api"))
    for _ in range(3):
        unchanged = hook.start()
        hook.end(unchanged, endings.nothing_new("data are those of zerovl@1", unchanged))
    hook.hurry("not started")  # only now: a busy server may take so long to end those before that they are late too
    late = hook.start()  # the server calls it late after 15 s
    assert hook.message(f"{factory.name(failed)} of retrain-weekly failed") == hook.text(
        failed,
        "Failed: git knows no revision 'mian'",
        "read the run's log. Once the cause is fixed, run the deployment again: what is finished is not done again, "
        "and a training goes on from its last checkpoint.",
    )
    assert hook.message(f"{factory.name(refused)} of retrain-weekly was refused by the gate") == hook.text(
        refused,
        "Refused: the gate refused zerovl@4 (min_rsum): production stays where it is",
        'the artifact "summary" of the run has the verdict. The version is kept; python -m flows.promote with '
        "--over-the-gate and --why gives it the alias all the same.",
    )
    assert hook.message("retrain-weekly found nothing new three times in a row") == hook.text(
        unchanged,
        "StillNothingNew: data are those of zerovl@1; the last 3 runs found nothing new",
        "see whether new data still arrives where it is imported from. Where none is to come, pause the schedule.",
    )
    assert hook.message(f"{factory.name(late)} of retrain-weekly is stuck: nobody takes it") == hook.text(
        late,
        f"It was due at {hook.time(late, 'expected_start_time')} UTC, and no worker has taken it.",
        "start a worker where the GPUs are (make ui, or prefect worker start --pool zerovl), and see that the pool is "
        "not paused.",
    )
    assert hook.message(f"{factory.name(long)} of retrain-weekly is stuck: it has run for three days") == hook.text(
        long,
        f"It began at {hook.time(long, 'start_time')} UTC, and has not ended.",
        "read the run's log. Cancel saves a checkpoint, and the next run goes on from there. A training that is meant "
        "to take so long needs nothing.",
    )
    titles = [each["title"] for each in hook.got if "retrain-weekly" in each["title"]]  # an older run may be told again
    assert len(set(titles)) == 5  # nothing of those that ended as they should
    assert len(titles) == 5 or factory.refused_events() > refused_before  # nothing twice else
