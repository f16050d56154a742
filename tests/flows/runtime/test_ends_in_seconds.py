"""A cancelled run ends in seconds also where nothing is to be saved: git waits for a dead remote, DVC hashes.

None of it looks at a clock: a remote that never answers takes git two minutes, a file of a terabyte takes DVC an hour.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import stages
from flows.pipeline import Silent
from flows.runtime import process
from flows.runtime.checkout import Checkout
from flows.runtime.git import NETWORK_SECONDS, CheckoutError, git
from flows.runtime.paths import Paths
from flows.runtime.process import Patience
from tests.support.prefect_api import wait_for

VARIABLE = "ZEROVL_ENDS_IN_SECONDS"  # in the environment of all that a test starts


class Cancelled(BaseException):
    """As Prefect's own, which the handler of SIGTERM raises in a run's main thread."""


@pytest.fixture(autouse=True)
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def cancel(*_: object) -> None:
        raise Cancelled

    monkeypatch.setenv(VARIABLE, str(tmp_path))
    before = signal.signal(signal.SIGTERM, cancel)
    yield
    signal.signal(signal.SIGTERM, before)


def started(folder: Path) -> list[psutil.Process]:
    """Processes that a test started and that are there yet, whoever their parent is by now."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            alive = each.status() != psutil.STATUS_ZOMBIE and each.pid != os.getpid()
            if alive and each.environ().get(VARIABLE) == str(folder):
                found.append(each)
    return found


def nothing_is_left(folder: Path) -> None:
    wait_for("the end of all", lambda: not started(folder))


@contextmanager
def cancelled_when(come_to: Callable[[], Any]) -> Iterator[None]:
    """Cancel this process as soon as the call returns."""

    def wait() -> None:
        come_to()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
    with pytest.raises(Cancelled):
        yield


class DeadRemote:
    """Takes every connection, keeps it, and never says a word."""

    def __init__(self, server: socket.socket, kept: ExitStack) -> None:
        self._server, self._kept = server, kept
        self.url = f"http://127.0.0.1:{server.getsockname()[1]}/project.git"

    def accept(self) -> None:
        """Wait for a connection. One that nobody keeps is closed, which git takes for an answer."""
        connection, _ = self._server.accept()
        self._kept.enter_context(connection)


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadRemote]:
    monkeypatch.setenv("no_proxy", "*")  # a proxy would answer in its place
    with ExitStack() as kept:
        yield DeadRemote(kept.enter_context(socket.create_server(("127.0.0.1", 0))), kept)


@pytest.fixture
def repository(tmp_path: Path, dead: DeadRemote) -> Path:
    folder = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    git(folder, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--allow-empty", "--quiet", "-m", "one")
    git(folder, "remote", "add", "origin", dead.url)
    return folder


@pytest.mark.parametrize("words", [("fetch", "--quiet", "origin"), ("push", "origin", "HEAD:refs/heads/runs/one")])
def test_git_that_waits_for_a_dead_remote(
    tmp_path: Path, repository: Path, dead: DeadRemote, words: tuple[str, ...]
) -> None:
    with cancelled_when(dead.accept):
        git(repository, *words, seconds=NETWORK_SECONDS)
    nothing_is_left(tmp_path)  # neither git nor git-remote-http


@pytest.mark.usefixtures("dead")
def test_git_that_has_just_begun(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class CancelledAtOnce(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", CancelledAtOnce)
    with pytest.raises(Cancelled):
        git(repository, "fetch", "--quiet", "origin", seconds=NETWORK_SECONDS)
    nothing_is_left(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_a_remote_that_is_dead_for_too_long(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(CheckoutError, match="fetch --quiet origin` failed: no answer within 1 s"):
        git(repository, "fetch", "--quiet", "origin", seconds=1.0)
    nothing_is_left(tmp_path)


def test_dvc_that_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the files of a folder in threads, which Ctrl-C does not reach."""
    monkeypatch.setattr(process, "_ALONE_SECONDS", 0.5)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    checkout = Checkout(Paths(tmp_path, tmp_path / "state"), "one", tmp_path)
    stages.run_dvc(checkout, ["init", "--quiet"], Silent())
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("first", "second"):
        with open(raw / name, "wb") as sparse:
            sparse.truncate(1 << 40)
    (tmp_path / "dvc.yaml").write_text("stages:\n  prepare:\n    cmd: 'true'\n    deps: [raw]\n")

    def hashes() -> bool:
        with suppress(psutil.Error):
            return any(file.path.startswith(str(raw)) for each in started(tmp_path) for file in each.open_files())
        return False

    with cancelled_when(lambda: wait_for("DVC to hash", hashes)):
        stages.run_dvc(checkout, ["repro", "--pull", "prepare"], Silent())
    nothing_is_left(tmp_path)


def test_only_training_has_the_time_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Patience] = {}

    def run(command: list[str], *others: Any) -> str:
        given[command[-1]] = others[-1]
        return ""

    monkeypatch.setattr(stages.process, "run", run)
    monkeypatch.setattr(stages, "ProgressReporter", lambda name: nullcontext(Silent()))
    monkeypatch.setattr(stages, "hold_turn", lambda *_: nullcontext(()))
    monkeypatch.setattr(stages, "show", lambda pages: None)
    monkeypatch.delenv(process.GRACE_VARIABLE, raising=False)
    checkout = Checkout(Paths(tmp_path, tmp_path), "one", tmp_path)
    for stage in (stages.prepare, stages.validate, stages.train, stages.evaluate, stages.register):
        stage.fn(checkout)
    assert given.pop("train") == Patience(60.0, 5.0)
    assert set(given) == {"prepare", "validate", "evaluate", "register"}
    assert set(given.values()) == {Patience(10.0, 5.0)}
    monkeypatch.setenv(process.GRACE_VARIABLE, "3")
    assert Patience.of_training() == Patience.of_other_stages() == Patience(3.0, 3.0)
