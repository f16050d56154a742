"""Deployments against a real server and worker: from the form to the release, schedules and events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows import SERVER_SETTINGS
from flows.server import due
from tests.support.factory import Factory
from tests.support.prefect_api import wait_for
from tests.support.project_copy import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_run_from_the_form_to_the_release(factory: Factory, first_run: str) -> None:
    progress = factory.artifacts(first_run)["progress-train"]
    assert factory.state(first_run)["type"] == "COMPLETED" or 0 <= progress["data"] < 100
    factory.slow_from(None)
    factory.completed(first_run)
    factory.gone()
    name = factory.name(first_run)
    shown = factory.artifacts(first_run)
    assert [key for key, each in shown.items() if not each["description"]] == []
    for stage in ("prepare", "validate", "train", "evaluate", "register", "push"):
        assert shown[f"progress-{stage}"]["data"] == 100, stage
    assert shown["validation-rules"]["type"] == "table"
    assert "(data:image/png;base64," in shown["gallery"]["data"]
    assert "(data:image/svg+xml;base64," in shown["curves"]["data"]
    assert f"http://reports.test/{name}/evaluation/report.html" in shown["evaluation-report"]["data"]
    assert f"http://reports.test/{name}/validation/index.html" in shown["validation-report"]["data"]
    assert "zerovl@1" in shown["summary"]["data"]
    assert "No model is in production yet" in shown["summary"]["data"]
    # The release names a commit that has its parameters, and the branch has the locks.
    origin = factory.version(1)["provenance"]
    assert not origin["git"]["dirty"]
    assert factory.version(1)["by"] == f"run {name}"
    assert git(factory.root, "rev-parse", f"runs/{name}~1") == origin["git"]["commit"]
    assert "epochs: 2.0" in git(factory.root, "show", f"{origin['git']['commit']}:params.yaml")
    assert "evaluate" in git(factory.root, "show", f"runs/{name}:dvc.lock")
    # What every run of DVC begins with is not for the log.
    logs = factory.logs(first_run)
    assert "Running stage 'prepare'" in logs
    assert "stage 'code'" not in logs
    # The user's checkout is as it was, the run's own is gone, its reports stay.
    assert git(factory.root, "status", "--porcelain") == ""
    assert not (factory.paths.checkouts / name).exists()
    assert (factory.paths.reports / name / "evaluation" / "report.html").is_file()


def test_deploying_again_changes_nothing(factory: Factory) -> None:
    planned, written = factory.planned(), _written(factory)
    assert set(written) >= {"zerovl: lost runs", "zerovl: notice: not ended"}
    assert factory.command("-m", "flows.server.deploy") == "deployments are up to date, nothing changed\n"
    assert factory.planned() == planned  # the same runs: one that is due in this minute is not made twice
    assert _written(factory) == written  # else the server forgets what their triggers are waiting for
    # What someone edits stays as long as prefect.yaml and the code do, and is never overwritten without a word.
    found = factory.api("GET", "/deployments/name/train/train")
    factory.api("PATCH", f"/deployments/{found['id']}", {"parameters": {"recipe": "demo"}})
    assert factory.command("-m", "flows.server.deploy") == "deployment train/train: parameters kept as edited\n"
    assert factory.api("GET", "/deployments/name/train/train")["parameters"] == {"recipe": "demo"}
    # What someone switches off in the UI stays off, while something else changes.
    found = factory.api("GET", "/deployments/name/retrain/retrain-weekly")
    schedule = f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}"
    factory.api("PATCH", schedule, {"active": False})
    path = factory.root / "prefect.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("0 3 * * 1", "0 4 * * 1"))
        assert factory.command("-m", "flows.server.deploy").splitlines() == [
            "deployment train/train: overwritten what someone had edited: parameters = {'recipe': 'demo'}",
            "deployment retrain/retrain-weekly: changed schedules",
            "deployment train/train: changed parameters",
        ]
    finally:
        path.write_text(before)
    found = factory.api("GET", "/deployments/name/retrain/retrain-weekly")
    (changed,) = found["schedules"]
    assert (changed["active"], changed["schedule"]["cron"]) == (False, "0 4 * * 1")
    factory.api("PATCH", f"/deployments/{found['id']}/schedules/{changed['id']}", {"active": True})
    assert factory.command("-m", "flows.server.deploy") == "deployment retrain/retrain-weekly: changed schedules\n"


def test_ten_deploys_around_the_scheduled_minute_make_one_run(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a worker holds the run already. Of a deployment without a pool: nobody begins its runs."""
    before = timedelta(seconds=20)
    monkeypatch.setattr(due, "_BEFORE", before)
    monkeypatch.setattr(due, "_AFTER", timedelta(seconds=1))
    due_at = datetime.now(UTC)

    def flow() -> str:
        return str(factory.api("POST", "/flows/", {"name": "due"})["id"])

    def apply() -> str:
        schedule = {"interval": 3600, "anchor_date": due_at.isoformat(), "timezone": "UTC"}
        schedules = [{"schedule": schedule, "active": True, "slug": "hourly"}]
        content = {"name": "due", "flow_id": flow(), "tags": ["zerovl"], "schedules": schedules}
        return str(factory.api("POST", "/deployments/", content)["id"])

    def remove() -> None:
        factory.api("DELETE", f"/flows/{flow()}")  # with its deployment and its runs

    def due_runs() -> list[dict[str, Any]]:
        rows = factory.runs_of("due")
        return [each for each in rows if datetime.fromisoformat(each["expected_start_time"]) == due_at]

    def planned() -> dict[str, Any] | None:
        """A run that is due soon; None where a busy server took so long that it is due now."""
        nonlocal due_at
        due_at = datetime.now(UTC).replace(microsecond=0) + before
        factory.api("POST", f"/deployments/{apply()}/schedule", {})  # at once, as the scheduler does within seconds
        found = due_runs()
        if found and datetime.now(UTC) < due_at - before / 2:
            return found[0]
        remove()
        return None

    said: list[str] = []
    try:
        run = wait_for("a run that is due soon", planned)
        taken = {"state": {"type": "PENDING", "name": "Pending"}, "force": True}
        factory.api("POST", f"/flow_runs/{run['id']}/set_state", taken)
        with SyncPrefectClient(f"{factory.url}/api") as client:
            for _ in range(10):
                due.let_pass(client, said.append)
                apply()
        later = (due_at + timedelta(hours=1)).isoformat()[:16]
        wait_for("the next run", lambda: later in str(factory.planned()))
        assert [each["id"] for each in due_runs()] == [run["id"]]
    finally:
        remove()
    assert len(said) == 1
    assert f"run {run['name']} is due at {due_at:%H:%M:%S} UTC" in said[0]


def _written(factory: Factory) -> dict[str, str]:
    """When each automation was written the last time."""
    return {each["name"]: each["updated"] for each in factory.api("POST", "/automations/filter", {"limit": 200})}


def test_the_schedule_is_planned(factory: Factory) -> None:
    """The server's scheduler really makes runs of it; a schedule that is listed but never fires looks the same."""

    def at_three() -> bool:
        times = factory.planned().values()
        return bool(times) and all(time[11:16] == "03:00" for time in times)

    wait_for("runs of the schedule at 3:00", at_three)


def test_nothing_new_and_an_event(factory: Factory) -> None:
    run = factory.run("retrain/retrain-weekly")
    factory.command(
        *("-m", "prefect", "event", "emit", "zerovl.new-data", "--resource-id", "zerovl.data"),
        *("--payload", '{"reason": "a crate of pictures", "revision": "no-such-branch"}'),
    )

    def started() -> str | None:
        rows = factory.api("POST", "/flow_runs/filter", {"deployments": {"name": {"any_": ["retrain-on-new-data"]}}})
        return str(rows[0]["id"]) if rows else None

    of_event = wait_for("a run of the event", started)
    state = factory.wait(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "NothingNew"), factory.logs(run)
    assert "those of zerovl@1" in state["message"]
    state = factory.wait(of_event)
    assert state["type"] == "FAILED"
    factory.said(of_event, "asked for by: a crate of pictures")
    assert "git knows no revision 'no-such-branch'" in state["message"]
    assert "Traceback" not in factory.logs(of_event)
    # An automation heard of it, through our broker, and the worker ran the command that tells people.
    events = factory.api("GET", "/admin/settings")["server"]["events"]
    assert events["messaging_broker"] == SERVER_SETTINGS["PREFECT_SERVER_EVENTS_MESSAGING_BROKER"]
    name, why = factory.name(of_event), "git knows no revision 'no-such-branch'"

    def told() -> str | None:
        text = factory.told.read_text() if factory.told.is_file() else ""
        return text if why in text else None  # the subject is there before the text

    text = wait_for("a notice with its text", told)
    assert f"{name} of retrain-on-new-data failed" in text
    assert f"Run: {name}, {factory.url}/runs/flow-run/{of_event}\n" in text
