"""`make deploy` knows what it applied: what was edited since, and whether there is anything to apply."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from flows.runtime.paths import Paths
from flows.server import deploy
from flows.server.deploy import overwritten
from flows.server.deployed import Deployed, unknown


class Client:
    """A server's variables."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def read_variable_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(value=self.values[name]) if name in self.values else None

    def create_variable(self, variable: Any) -> None:
        assert variable.name not in self.values
        self.values[variable.name] = variable.value

    def update_variable(self, variable: Any) -> None:
        assert variable.name in self.values
        self.values[variable.name] = variable.value


def snapshot(**changed: Any) -> dict[str, dict[str, Any]]:
    schedule = {"active": True, "cron": "0 3 * * 1"}
    values = {"tags": ["zerovl"], "parameters": {"reason": "weekly"}, "schedules": {"mondays": schedule}}
    values |= {"work_pool_name": "zerovl"}
    return {"retrain/retrain-weekly": {**values, **changed}, "other/other": {"tags": [], "parameters": {}}}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "forms.py").write_text("Recipe = 1\n")
    (tmp_path / "prefect.yaml").write_text("deployments: []\n")
    return Paths(tmp_path, tmp_path / ".flows")


def test_what_was_applied_is_kept_on_the_server(paths: Paths) -> None:
    client = Client()
    assert Deployed.read(client) is None  # type: ignore[arg-type]
    for _ in range(2):
        made = Deployed.now(paths, snapshot())
        made.write(client)  # type: ignore[arg-type]
        assert Deployed.read(client) == made  # type: ignore[arg-type]
    assert list(made.fields) == ["retrain/retrain-weekly"]  # deployments of others are theirs


def test_there_is_something_to_apply_where_a_file_changed_or_a_deployment_is_gone(paths: Paths) -> None:
    made = Deployed.now(paths, snapshot())
    assert made.covers(paths, snapshot())
    assert not made.covers(paths, {})
    assert not made.covers(paths, snapshot(work_pool_name=None))  # somebody has deleted the pool
    assert made.covers(paths, snapshot(work_pool_name="another"))
    (paths.root / "flows" / ".#forms.py").symlink_to("somebody@a-machine.4711:1")  # Emacs' lock
    assert made.covers(paths, snapshot())
    (paths.root / "flows" / "forms.py").write_text("Recipe = 2\n")  # another form
    assert not made.covers(paths, snapshot())
    assert not made.covers(Paths(paths.state, paths.state), snapshot())  # from another checkout


def test_edits_are_found_and_a_paused_schedule_is_none(paths: Paths) -> None:
    made = Deployed.now(paths, snapshot())
    assert made.edited(snapshot()) == {}
    assert made.edited(snapshot(schedules={"mondays": {"active": False, "cron": "0 3 * * 1"}})) == {}
    later = {"mondays": {"active": True, "cron": "0 4 * * 1"}}
    now = snapshot(schedules=later, parameters={"reason": "daily"})
    edited = made.edited(now)
    assert edited == {"retrain/retrain-weekly": ["parameters", "schedules"]}
    assert overwritten("what someone had edited", edited, now, snapshot(schedules=later)) == [
        "deployment retrain/retrain-weekly: overwritten what someone had edited: parameters = {'reason': 'daily'}"
    ]


def test_more_deployments_than_a_variable_can_name(paths: Paths) -> None:
    one = snapshot()["retrain/retrain-weekly"]
    many = {f"train/{number}": one for number in range(200)}
    client = Client()
    made = Deployed.now(paths, many)
    made.write(client)  # type: ignore[arg-type]
    assert len(client.values) > 2
    assert all(len(json.dumps(value)) <= 5000 for value in client.values.values())  # what Prefect takes
    again = Deployed.read(client)  # type: ignore[arg-type]
    assert again == made
    assert again.covers(paths, many)
    assert again.edited(many) == {}
    changed = {"train/0", "train/199"}
    edited = {name: {**one, **({"parameters": {}} if name in changed else {})} for name in many}
    assert again.edited(edited) == {name: ["parameters"] for name in changed}
    # Fewer of them later: what is left of before is not read.
    made = Deployed.now(paths, snapshot())
    made.write(client)  # type: ignore[arg-type]
    assert Deployed.read(client) == made  # type: ignore[arg-type]


def test_where_nobody_knows_what_was_applied_all_that_changes_is_said(paths: Paths) -> None:
    now, later = snapshot(parameters={"reason": "daily"}), snapshot()
    for last in (None, Deployed("source", {}), Deployed("source", {"retrain/retrain-weekly": {"tags": "0"}})):
        assert overwritten("what someone may have edited", unknown(last, now), now, later) == [
            "deployment retrain/retrain-weekly: overwritten what someone may have edited: "
            "parameters = {'reason': 'daily'}"
        ]
    assert unknown(Deployed.now(paths, now), now) == {}


@pytest.mark.parametrize("covered", [False, True], ids=["something changed", "nothing changed"])
def test_a_run_that_is_due_is_let_pass_before_anything_is_applied(
    covered: bool, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So ten deploys around the scheduled minute make one run: what is applied makes its runs again."""
    done: list[str] = []
    client = MagicMock()
    monkeypatch.setattr(deploy, "get_client", lambda **_: client)
    monkeypatch.setattr(deploy, "get_current_settings", lambda: SimpleNamespace(api=SimpleNamespace(url="http://x")))
    for name, found in (("_pool", []), ("snapshot", {}), ("one_of_each", ({}, [])), ("_mark_lost_runs", None)):
        monkeypatch.setattr(deploy, name, lambda *_, found=found: found)
    monkeypatch.setattr(deploy.notices, "apply", lambda *_: None)
    monkeypatch.setattr(deploy.due, "let_pass", lambda _: done.append("let pass"))
    monkeypatch.setattr(deploy, "_apply", lambda _: done.append("apply"))
    monkeypatch.setattr(deploy, "_keep_paused", lambda *_: done.append("pauses"))
    monkeypatch.setattr(
        Deployed, "read", lambda _: SimpleNamespace(fields={}, edited=lambda _: {}, covers=lambda *_: covered)
    )
    monkeypatch.setattr(Deployed, "write", lambda *_: done.append("kept"))
    assert deploy.deploy(paths) == []
    assert done == ([] if covered else ["let pass", "apply", "pauses", "kept"])
