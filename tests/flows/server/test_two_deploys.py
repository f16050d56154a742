"""Two `make deploy` at once: one waits for the other, and what two have made twice is there once after the next."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never
from unittest.mock import MagicMock

import httpx
import pytest
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.runtime import notice_setting
from flows.runtime.paths import Paths
from flows.server import deploy, notices
from flows.server.automations import LOST_RUNS, one_of_each
from flows.server.deployed import Deployed

REFUSED = notices.PREFIX + "refused"


class Client:
    """Automations of a server, which lets any number have one name."""

    def __init__(self, *automations: tuple[str, bool]) -> None:
        self.automations = {str(number): self.made(number, *each) for number, each in enumerate(automations)}

    @staticmethod
    def made(number: int, name: str, enabled: bool, starts: str = "deployment-1") -> dict[str, Any]:
        return {
            "id": str(number),
            "name": name,
            "enabled": enabled,
            "created": f"2026-11-0{9 - number}",
            "description": "",
            "trigger": {"id": f"trigger-{number}", "expect": ["a", "b"] if number % 2 else ["b", "a"]},
            "actions": [{"type": "run-deployment", "deployment_id": starts}],
        }

    def request(self, method: str, path: str, path_params: Any = None, json: Any = None) -> SimpleNamespace:
        if method == "DELETE":
            if self.automations.pop(path_params["id"], None) is None:
                request = httpx.Request(method, "http://x")
                raise httpx.HTTPStatusError("404", request=request, response=httpx.Response(404, request=request))
            return SimpleNamespace()
        assert (method, path) == ("POST", "/automations/filter")
        return SimpleNamespace(json=lambda: list(self.automations.values()))


def test_of_several_of_one_name_the_oldest_enabled_one_stays() -> None:
    client = Client(
        (LOST_RUNS, True), (LOST_RUNS, True), (REFUSED, True), (REFUSED, False), ("zerovl: new data", True),
        ("zerovl: new data", True), ("of others", True), ("of others", True),
    )  # fmt: skip
    kept, said = one_of_each(client)  # type: ignore[arg-type]
    assert said == [
        f"automation {LOST_RUNS}: was there 2 times, one is kept",
        "automation zerovl: new data: was there 2 times, one is kept",
        f"automation {REFUSED}: was there 2 times, one is kept",
    ]
    assert set(client.automations) == {"1", "2", "5", "6", "7"}  # what others made is theirs
    assert {name: each["id"] for name, each in kept.items() if name in (LOST_RUNS, REFUSED)} == {
        LOST_RUNS: "1",
        REFUSED: "2",
    }
    assert one_of_each(client)[1] == []  # type: ignore[arg-type]


def test_triggers_of_two_deployments_may_share_a_name() -> None:
    client = Client(("zerovl: new data", True))
    for number, starts in ((1, "deployment-2"), (2, "deployment-2"), (3, "deployment-1")):
        client.automations[str(number)] = client.made(number, "zerovl: new data", number != 3, starts)
    said = one_of_each(client)[1]  # type: ignore[arg-type]
    assert said == ["automation zerovl: new data: was there 2 times, one is kept"] * 2
    assert set(client.automations) == {"0", "2"}  # the enabled one of the first, the older one of the second


def test_off_removes_all_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client((REFUSED, True), (REFUSED, True), (LOST_RUNS, True))
    monkeypatch.setenv(notice_setting.VARIABLE, "off")
    kept, _ = one_of_each(client)  # type: ignore[arg-type]
    notices.apply(client, kept)  # type: ignore[arg-type]
    assert [each["name"] for each in client.automations.values()] == [LOST_RUNS]
    notices.apply(client, kept)  # type: ignore[arg-type]  # another deploy has removed them meanwhile


def already_there(*_: object) -> Never:
    raise ObjectAlreadyExists(http_exc=Exception())


def test_what_another_machine_made_meanwhile_is_there() -> None:
    client = MagicMock()
    client.read_work_pool.side_effect = ObjectNotFound(http_exc=Exception())
    client.create_work_pool.side_effect = already_there
    assert deploy._pool(client) == []
    client.read_variable_by_name.return_value = None
    client.create_variable.side_effect = already_there
    Deployed("source", {}).write(client)
    client.update_variable.assert_called_once()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(deploy, "get_current_settings", lambda: SimpleNamespace(api=SimpleNamespace(url="http://x")))
    return Paths(tmp_path, tmp_path / "state")


def test_a_deploy_has_the_lock_before_it_asks_the_server_and_says_that_it_waits(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.state.mkdir()
    other = os.open(paths.state, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    flock, held = fcntl.flock, uuid.uuid4().hex

    def wait(descriptor: int, operation: int) -> None:
        if not operation & fcntl.LOCK_NB:
            assert "waiting for another `make deploy`, which holds the lock of" in capsys.readouterr().out
            os.close(other)  # the other has ended
        flock(descriptor, operation)

    def ask(**_: object) -> Never:
        third = os.open(paths.state, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(third)
        raise SystemExit(held)

    monkeypatch.setattr(fcntl, "flock", wait)
    monkeypatch.setattr(deploy, "get_client", ask)
    with pytest.raises(SystemExit, match=held):
        deploy.deploy(paths)
    third = os.open(paths.state, os.O_RDONLY)
    flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again
    os.close(third)


def test_a_folder_of_state_that_cannot_be_made(paths: Paths) -> None:
    paths.state.write_text("a file in its way")
    with pytest.raises(SystemExit, match="state: File exists; ZEROVL_FLOWS names another folder"):
        deploy.deploy(paths)
