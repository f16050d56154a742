"""Who is told of a move, how often it is tried, and that a move never depends on it."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.registries import Bundle, promote, publish
from zerovl import cli, params_file
from zerovl.errors import ZeroVLError
from zerovl.params import GateParams, HookParams, RegisterParams
from zerovl.registry.registry import Registry
from zerovl.release import hooks
from zerovl.release.gate import NoHolder
from zerovl.release.publish import Candidate, publish_and_judge

pytestmark = pytest.mark.usefixtures("registry_environment", "unchecked", "quick")
SECRET = "of the team"


class Receiver:
    """Answers with `statuses` first, then with 200, and keeps what was sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.requests: list[tuple[Message, bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.headers, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{self.host}/secret/place"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No waits between attempts, a secret, and a folder without a params.yaml."""
    monkeypatch.setattr(hooks, "WAITS", (0.0, 0.0))
    monkeypatch.setenv("ZEROVL_HOOK_SECRET", SECRET)
    monkeypatch.delenv("ZEROVL_HOOK_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is warned of, also where a command has set up the log before."""
    monkeypatch.setattr(logging.getLogger("zerovl"), "propagate", True)
    caplog.set_level("WARNING")
    return caplog


def listed(*given: dict[str, str]) -> list[HookParams]:
    return [HookParams(**each) for each in given]


def after_a_move(registry: Registry, make_bundle: Bundle, *given: dict[str, str]) -> list[hooks.Outcome]:
    promote(registry, publish(registry, make_bundle("a")))
    move = registry.last_move("zerovl", "production")
    hooks.configured(listed(*given)).after(registry, move)
    return hooks.outcomes(registry, "zerovl", "production").get(1, [])


def test_a_receiver_that_fails_twice_is_told_with_a_signature(
    registry: Registry, make_bundle: Bundle, receiver: Receiver
) -> None:
    receiver.statuses = [500, 503]
    (outcome,) = after_a_move(registry, make_bundle, {"url": receiver.url})
    assert (outcome.hook, outcome.told, outcome.attempts, outcome.error) == (receiver.host, True, 3, "")
    assert len({body for _, body in receiver.requests}) == 1
    headers, body = receiver.requests[-1]
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-ZeroVL-Signature"] == f"sha256={signature}"
    told = json.loads(body)
    assert told["delivery"] == headers["X-ZeroVL-Delivery"] == outcome.delivery
    assert (told["store"], told["before"]) == (registry.store.uri, None)
    assert (told["move"]["alias"], told["move"]["version"], told["move"]["why"]) == ("production", 1, "better")


@pytest.mark.parametrize("statuses", [[500, 500, 500], [302, 302, 302], [404, 404, 404]])
def test_one_that_always_fails_is_a_warning_and_is_recorded(
    local: Registry,
    make_bundle: Bundle,
    receiver: Receiver,
    statuses: list[int],
    warnings: pytest.LogCaptureFixture,
) -> None:
    receiver.statuses = list(statuses)
    (outcome,) = after_a_move(local, make_bundle, {"url": receiver.url})
    assert (outcome.told, outcome.attempts, outcome.error) == (False, 3, f"answered {statuses[0]}")
    assert len(receiver.requests) == 3
    expected = f"zerovl@production moved; hook {receiver.host} NOT told, 3 attempts: answered {statuses[0]}"
    assert expected in warnings.text
    assert "secret" not in warnings.text


def test_commands_and_addresses_are_told_beside_each_other(
    local: Registry, make_bundle: Bundle, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tell.py").write_text("import sys; open('told.json', 'w').write(sys.stdin.read())")
    (tmp_path / "fail.py").write_text("import sys; sys.exit('the search is down')")
    monkeypatch.setenv("ZEROVL_HOOK_URL", receiver.url)
    commands = [{"command": f"{sys.executable} {name}"} for name in ("tell.py", "fail.py")]
    told, failed, sent = after_a_move(local, make_bundle, *commands, {"url": receiver.url})  # that address is one
    assert (told.told, failed.told, sent.told) == (True, False, True)
    assert json.loads((tmp_path / "told.json").read_text())["move"]["version"] == 1
    assert failed.error == "exit status 1, the search is down"
    assert "No such file" in after_absent(local, "absent-command x")


def after_absent(registry: Registry, command: str) -> str:
    with pytest.raises(hooks.HookError) as error:
        hooks.Command(command).tell("id", b"{}")
    return str(error.value)


class Script:
    """A command of a hook that starts a process of its own, with lines of shell before and after."""

    def __init__(self, folder: Path, before: str = "", after: str = "") -> None:
        self.path, self._started = folder / "hook", folder / "started"
        self.path.write_text(f"#!/bin/sh\n{before}\nsleep 300 & echo $! > {self._started}\n{after}\n")
        self.path.chmod(0o755)

    def tell(self) -> None:
        hooks.Command(str(self.path)).tell("1", b"moved")

    @property
    def started(self) -> int:
        """The number of the process that it started."""
        return int(self._started.read_text())


def test_a_command_is_over_when_its_own_process_is_whatever_it_leaves_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hooks, "_COMMAND_SECONDS", 30.0)
    script = Script(tmp_path, before=f"cat > {tmp_path}/told")
    script.tell()
    assert (tmp_path / "told").read_bytes() == b"moved"
    assert psutil.pid_exists(script.started)  # of its own will: it goes on
    psutil.Process(script.started).kill()


def test_a_command_that_does_not_end_is_killed_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hooks, "_COMMAND_SECONDS", 1.0)
    script = Script(tmp_path, after="wait")
    with pytest.raises(hooks.HookError, match="no end after 1 s"):
        script.tell()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(script.started).wait(30)
    assert not psutil.pid_exists(script.started)


def test_an_interrupt_is_not_lost_where_the_command_ends_with_it() -> None:
    """Python waits for it a little longer then, and there is nothing left to kill."""
    with pytest.raises(KeyboardInterrupt):
        hooks.Command("sh -c 'sleep 0.2; kill -INT $PPID'").tell("delivery", b"{}")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://user:s3cret@hooks.test/x", "https://hooks.test"),
        ("https://hooks.test/s3cret place", "https://hooks.test"),
        ("https://hooks.test?token=s3cret@s3cret place", "https://hooks.test"),
        ("hooks.test/s3cret", "an address without http:// or https://"),
        ("http://[::1/s3cret", "http://[::1"),
        ("file:///etc/s3cret", "file://"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_its_secret(
    local: Registry,
    make_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    warnings: pytest.LogCaptureFixture,
    url: str,
    name: str,
) -> None:
    monkeypatch.setenv("ZEROVL_HOOK_URL", url)
    (outcome,) = after_a_move(local, make_bundle)
    assert outcome.hook == name
    assert outcome.error.startswith("it cannot be sent there: expected http(s)://HOST")
    assert name in warnings.text
    assert "s3cret" not in warnings.text + str(outcome)


def test_without_a_secret_nothing_is_sent(
    local: Registry, make_bundle: Bundle, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZEROVL_HOOK_SECRET")
    (outcome,) = after_a_move(local, make_bundle, {"url": receiver.url})
    assert "ZEROVL_HOOK_SECRET is not set" in outcome.error
    assert receiver.requests == []


def test_the_commands_and_the_gate_tell(
    local: Registry, make_bundle: Bundle, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    section = RegisterParams(hooks=listed({"url": receiver.url}), gate=GateParams(min_rsum=0.0))
    metrics: dict[str, Any] = {"mean": {"rsum": 300.0}, "overall": {"rsum": 300.0}, "sources": {}}
    candidate = Candidate(make_bundle("a"), metrics, {})
    for _ in range(2):  # the second time it has the alias already
        publish_and_judge(local, candidate, section, lambda registry, holder: NoHolder("none"))  # type: ignore[arg-type,return-value]
    assert len(receiver.requests) == 1
    publish(local, make_bundle("b"))
    overrides = [f"register.hooks=[{{url: '{receiver.url}'}}]"]
    params_file.write(params_file.from_recipe({}, overrides, "test"), "params.yaml")

    def run(*words: str) -> str:
        capsys.readouterr()
        assert cli.main(["registry", "--store", local.store.uri, *words]) == 0
        return capsys.readouterr().out

    run("promote", "zerovl@2", "production")
    receiver.statuses = [500, 500, 500]
    assert "version 2 -> version 1" in run("rollback", "zerovl@production")  # told or not
    actions = [(json.loads(body)["move"]["action"], json.loads(body)["before"]) for _, body in receiver.requests]
    assert actions == [("promote", None), ("promote", 1), *[("rollback", 2)] * 3]
    history = run("history", "zerovl@production")
    assert f"Hook:       {receiver.host} told after 1 attempt" in history
    assert f"Hook:       {receiver.host} NOT told, 3 attempts: answered 500" in history
    (record,) = json.loads(run("history", "zerovl@production", "--json"))[0]["hooks"]
    assert (record["told"], record["attempts"]) == (False, 3)


def test_a_params_file_that_cannot_be_read_stops_no_move(
    local: Registry, make_bundle: Bundle, tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    publish(local, make_bundle("a"))
    (tmp_path / "params.yaml").write_text("register: []")
    assert cli.main(["registry", "--store", local.store.uri, "promote", "zerovl@1", "production"]) == 0
    assert local.resolve("zerovl@production").number == 1


@pytest.mark.parametrize("hook", ["{}", "{command: a, url: 'http://b'}", "{url: 'file:///etc'}", "{command: ' '}"])
def test_a_hook_that_is_none_is_named(hook: str) -> None:
    with pytest.raises(ZeroVLError, match=r"register\.hooks\.0"):
        params_file.from_recipe({}, [f"register.hooks=[{hook}]"], "test")
