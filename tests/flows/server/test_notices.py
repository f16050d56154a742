"""People are told what the setting says, by the server itself or by a command; test_told.py reads what arrives."""

from __future__ import annotations

import json
import os
import threading
import uuid
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.blocks.notifications import SlackWebhook
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.server.utilities.user_templates import render_user_template_sync
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import endings, notify
from flows.endings import last_ends, refused
from flows.runtime import notice_setting
from flows.server import deploy, notices
from flows.server.notices import NOTICES, PREFIX
from tests.support.prefect_api import wait_for
from tests.support.webhook import receiver


class Client:
    """Automations as Prefect's server keeps them; it refuses what its own schema refuses."""

    def __init__(self) -> None:
        self.automations: dict[str, dict[str, Any]] = {}
        self.written: list[str] = []

    def request(self, method: str, path: str, path_params: Any = None, json: Any = None) -> None:
        if method == "DELETE":
            del self.automations[path_params["id"]]
            return
        kept = AutomationCreate.model_validate(deepcopy(json))  # which changes what it is given
        assert (method == "POST") == (json["name"] not in self.automations)
        self.written.append(json["name"])
        self.automations[json["name"]] = {**kept.model_dump(mode="json"), "id": json["name"]}

    def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        assert name == "notify/notify"
        return SimpleNamespace(id=uuid.UUID(int=3))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(notices, "save_block", lambda address: uuid.UUID(int=4))
    monkeypatch.delenv(notice_setting.VARIABLE, raising=False)
    return Client()


def apply(client: Client) -> dict[str, dict[str, Any]]:
    notices.apply(client, client.automations)  # type: ignore[arg-type]
    return client.automations


@pytest.mark.parametrize("off", ["off", " OFF "])
def test_one_setting_makes_changes_and_removes_them(client: Client, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    assert apply(client) == {}
    monkeypatch.setenv(notice_setting.VARIABLE, "mailto://user:secret@example.com")
    made = apply(client)
    assert set(made) == {PREFIX + notice.name for notice in NOTICES}
    for each in made.values():
        (action,) = each["actions"]
        assert (action["type"], action["block_document_id"]) == ("send-notification", str(uuid.UUID(int=4)))
        assert each["trigger"]["match_related"]["prefect.resource.name"] == ["retrain-*", "retention"]
    assert "secret" not in json.dumps(made)
    made[PREFIX + "refused"]["enabled"] = False  # by someone in the UI
    monkeypatch.setenv(notice_setting.VARIABLE, 'mail -s "$ZEROVL_SUBJECT" team@example.com')
    made = apply(client)
    assert {action["type"] for each in made.values() for action in each["actions"]} == {"run-deployment"}
    assert "ui_url" not in json.dumps(made)  # a filter that a server which never sent a notification does not know
    assert {name for name, each in made.items() if not each["enabled"]} == {PREFIX + "refused"}
    monkeypatch.delenv(notice_setting.VARIABLE)
    assert apply(client) == made  # a shell without the setting changes nothing
    monkeypatch.setenv(notice_setting.VARIABLE, off)
    assert apply(client) == {}


@pytest.mark.parametrize("setting", ["json://localhost/hook", "mail team@example.com"])
def test_each_text_has_the_runs_page_where_people_reach_the_ui(
    client: Client, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv(notice_setting.VARIABLE, setting)
    with temporary_settings({PREFECT_API_URL: "http://factory.example:4200/api"}):
        made = apply(client)
    link = "http://factory.example:4200/runs/flow-run/{{ flow_run.id }}\\nWhat to do: "
    assert [json.dumps(each["actions"]).count(link) for each in made.values()] == [1] * len(NOTICES)


def test_a_state_without_a_message_is_its_name() -> None:
    def what(message: str | None) -> str:
        state = SimpleNamespace(name="Crashed", message=message)
        return str(render_user_template_sync(NOTICES[0].what, {"flow_run": SimpleNamespace(state=state)}))

    assert what("git knows no revision") == "Crashed: git knows no revision"
    assert [what(None), what("")] == ["Crashed", "Crashed"]


@pytest.mark.parametrize("setting", ["mailto://user:secret@example.com", "mail team@example.com"])
def test_what_is_as_wanted_is_left_alone(client: Client, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """With each change the server forgets what a trigger was waiting for."""
    monkeypatch.setenv(notice_setting.VARIABLE, setting)
    made = apply(client)
    deploy._mark_lost_runs(client, None)  # type: ignore[arg-type]
    assert len(client.written) == len(NOTICES) + 1
    made[PREFIX + "refused"]["enabled"] = False  # by someone in the UI
    client.written.clear()
    apply(client)
    deploy._mark_lost_runs(client, made[deploy.LOST_RUNS])  # type: ignore[arg-type]
    assert client.written == []
    made[PREFIX + "failed"]["description"] = "edited"
    made[PREFIX + "not ended"]["trigger"]["within"] = 60.0
    made[deploy.LOST_RUNS]["actions"] = [{"type": "do-nothing"}]
    apply(client)
    deploy._mark_lost_runs(client, made[deploy.LOST_RUNS])  # type: ignore[arg-type]
    assert client.written == [PREFIX + "failed", PREFIX + "not ended", deploy.LOST_RUNS]
    assert made[PREFIX + "not ended"]["trigger"]["within"] == 3 * 24 * 3600
    assert not made[PREFIX + "refused"]["enabled"]


@pytest.mark.parametrize("setting", ["slak://token", "json://localhost/hook, slak://token"])
def test_an_address_that_nobody_understands(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(notice_setting.VARIABLE, setting)
    with pytest.raises(SystemExit, match="ZEROVL_NOTIFY: Apprise does not understand this slak:// address"):
        notices.apply(Client(), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "address", "command"),
    [
        ("", None, None),
        ("off", None, None),
        (" OFF\n", None, None),
        ("Off", None, None),
        ("off-call --team", None, "off-call --team"),
        ("slack://a/b/c", "slack://a/b/c", None),
        ("json://one, MAILTO://a:b@c.org", "json://one, MAILTO://a:b@c.org", None),
        ("Json://one?-name=The team", "Json://one?-name=The team", None),
        ("curl -d @- https://example.com/hook", None, "curl -d @- https://example.com/hook"),
    ],
)
def test_what_the_setting_means(
    monkeypatch: pytest.MonkeyPatch, value: str, address: str | None, command: str | None
) -> None:
    monkeypatch.setenv(notice_setting.VARIABLE, value)
    assert (notice_setting.address(), notice_setting.command()) == (address, command)


def test_prefects_block_takes_any_address_of_apprise() -> None:
    with receiver() as (address, got):
        sent = threading.Thread(target=lambda: SlackWebhook(url=address).notify("the gate refused it", "run a-b"))
        sent.start()  # a browser of another test may keep an event loop in this thread
        sent.join()
    assert [(each["title"], each["message"]) for each in got] == [("run a-b", "the gate refused it")]


def test_a_command_gets_the_text_and_never_runs_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "told"
    monkeypatch.setenv(notice_setting.VARIABLE, f'(echo "$ZEROVL_SUBJECT"; cat) > {file}')
    notify.run_command.fn("a $(touch no) subject", "line 1\n`touch no`\n")
    assert file.read_text() == "a $(touch no) subject\nline 1\n`touch no`\n"
    monkeypatch.setenv(notice_setting.VARIABLE, "echo no such host >&2; exit 3")
    with pytest.raises(notify.NoticeError, match=r"^the command of ZEROVL_NOTIFY ended with status 3: no such host$"):
        notify.run_command.fn("subject", "text")
    monkeypatch.setenv(notice_setting.VARIABLE, r"printf 'k\374hl' >&2; exit 3")  # not UTF-8
    with pytest.raises(notify.NoticeError, match=r"status 3: k\ufffdhl$"):
        notify.run_command.fn("subject", "text")
    monkeypatch.setenv(notice_setting.VARIABLE, "slack://a/b/c")
    with pytest.raises(notify.NoticeError, match="ZEROVL_NOTIFY is not a command in this worker's environment"):
        notify.run_command.fn("subject", "text")


def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    with open(os.open(held, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        monkeypatch.setattr(notify, "_SECONDS", 0.5)
        monkeypatch.setenv(notice_setting.VARIABLE, f"exec 9> {held}; sleep 600 & wait")
        with pytest.raises(notify.NoticeError, match=r"^the command of ZEROVL_NOTIFY did not end within 0.5 s$"):
            notify.run_command.fn("subject", "text")
        # At its end once nobody has it open for writing; until then there is nothing to read.
        wait_for("the end of all", lambda: reader.raw.read(1) == b"")


class Runs:
    """The ended runs of a deployment, the last one first."""

    deployment: uuid.UUID | None = uuid.UUID(int=1)

    def __init__(self, *names: str) -> None:
        self.names = names

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_flow_run(self, run: uuid.UUID) -> SimpleNamespace:
        return SimpleNamespace(deployment_id=self.deployment)

    def read_flow_runs(self, *, flow_run_filter: Any, limit: int, **_: Any) -> list[SimpleNamespace]:
        assert flow_run_filter.deployment_id.any_ == [self.deployment]
        assert set(flow_run_filter.state.type.any_) == {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        left = [name for name in self.names if name not in flow_run_filter.state.name.not_any_]
        return [SimpleNamespace(state_name=name) for name in left[:limit]]


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ((), "NothingNew"),
        (("NothingNew",), "NothingNew"),
        (("NothingNew", "NothingNew"), "StillNothingNew"),
        (("NothingNew", "Completed", "NothingNew"), "NothingNew"),
        (("StillNothingNew", "NothingNew", "NothingNew"), "NothingNew"),
        (("NothingNew", "NothingNew", "StillNothingNew", "NothingNew", "NothingNew"), "StillNothingNew"),
        (("NothingNew", "Skipped", "Skipped", "NothingNew"), "StillNothingNew"),
        (("NothingNew", "NothingNew", "StillNothingNew") * 50, "StillNothingNew"),
    ],
)
def test_every_third_time_in_a_row_has_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch, before: tuple[str, ...], name: str
) -> None:
    monkeypatch.setattr(endings, "get_client", lambda sync_client: Runs(*before))
    state = endings.nothing_new("data are those of zerovl@1", str(uuid.uuid4()))
    assert (state.type, state.name) == ("COMPLETED", name)
    assert state.message
    assert state.message.startswith("data are those of zerovl@1")


def test_a_run_from_a_terminal_has_no_row() -> None:
    of_a_terminal = Runs("NothingNew")
    of_a_terminal.deployment = None
    assert last_ends(of_a_terminal, uuid.uuid4()) == []  # type: ignore[arg-type]


def test_a_run_that_the_gate_refused_ends_with_a_name_of_its_own() -> None:
    reasons = [{"rule": "min_rsum", "passed": False}, {"rule": "max_drop mean", "passed": True}]
    release = {
        "name": "zerovl",
        "version": 4,
        "alias": "production",
        "promoted": False,
        "verdict": {"reasons": reasons},
    }
    state = refused(release)
    assert state
    assert (state.type, state.name) == ("COMPLETED", "Refused")
    assert state.message == "the gate refused zerovl@4 (min_rsum): production stays where it is"
    assert refused({**release, "promoted": True}) is None
    assert refused({**release, "alias": ""}) is None
    assert refused(None) is None
    assert refused({**release, "moved_away": "zerovl@production stays with zerovl@3"}) is None


def test_a_model_that_lost_the_alias_is_nothing_new_and_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "get_client", lambda sync_client: Runs())
    release = {"name": "zerovl", "version": 2, "alias": "production", "promoted": False, "verdict": {"passed": True}}
    why, run = "zerovl@production stays with zerovl@1: this model had it", str(uuid.uuid4())
    state = endings.moved_away({**release, "moved_away": why}, run)
    assert state
    assert (state.type, state.name, state.message) == ("COMPLETED", "NothingNew", why)
    for other in (None, {**release, "moved_away": ""}, {**release, "promoted": True}):
        assert endings.moved_away(other, run) is None
