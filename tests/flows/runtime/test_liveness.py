"""A run looks at what the server says of it, and ends itself where it was cancelled and nobody told it."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import Cancelled, Cancelling, Crashed, Running, State

from flows.runtime import liveness
from flows.runtime.liveness import LOST
from flows.runtime.told_to_end import by_itself, cancelled, told


class Server:
    """Says one state of the run after the other; `set` are those that the run has set."""

    def __init__(self, *states: State[Any]) -> None:
        self.states, self.set = list(states), list[Any]()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_flow_run(self, run: uuid.UUID) -> SimpleNamespace:
        return SimpleNamespace(state=self.states.pop(0))

    def set_flow_run_state(self, run: uuid.UUID, state: State[Any], force: bool) -> None:
        self.set.append(state.type)


@pytest.mark.parametrize(
    ("states", "corrected"),
    [
        ([Running(), Cancelled(message=LOST)], []),
        ([Crashed(message=LOST), Cancelled(message=f"{LOST}.")], ["RUNNING"]),
        ([Cancelling(), Cancelled(message=LOST)], []),
        ([Cancelling(), Running(), Cancelling(), Cancelling()], []),
    ],
)
def test_a_run_that_was_cancelled_ends_itself(
    monkeypatch: pytest.MonkeyPatch, states: list[State[Any]], corrected: list[str]
) -> None:
    server = Server(*states)
    sent: list[tuple[int, int]] = []
    clients: list[Server] = []

    def get_client(sync_client: bool) -> Server:
        clients.append(server)
        return server

    monkeypatch.setattr(liveness, "get_client", get_client)
    monkeypatch.setenv(liveness.LOOK_VARIABLE, "0.001")
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append((process, number)))
    liveness._say_alive(uuid.uuid4())
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert by_itself.is_set()
    assert cancelled.is_set()
    assert (server.states, server.set) == ([], corrected)
    assert len(clients) == 1  # a training looks for days


def test_a_run_that_was_told_to_end_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training may take longer to save than the time between two looks, and a busy server to hear what it saved.

    Told twice, it leaves without the one or the other.
    """
    server = Server(Cancelling(), Cancelling())
    sent: list[int] = []
    monkeypatch.setattr(liveness, "get_client", lambda sync_client: server)
    monkeypatch.setenv(liveness.LOOK_VARIABLE, "0.001")
    monkeypatch.setattr(os, "kill", lambda _process, number: sent.append(number))
    told.set()
    liveness._say_alive(uuid.uuid4())
    monkeypatch.setattr(os, "getppid", iter((2, 1)).__next__)
    liveness._watch_parent()  # whose worker is gone meanwhile
    assert (server.states, server.set, sent) == ([], [], [])
    assert by_itself.is_set()  # so that it writes its state, which no worker does any more


def test_nothing_looks_any_more_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that Python's end meets in the midst of compiled code aborts the process of a complete run."""
    monkeypatch.setattr(liveness, "_ends", threading.Event())
    monkeypatch.setenv(liveness.LOOK_VARIABLE, "1000")
    alive = threading.Thread(target=liveness._say_alive, args=(uuid.uuid4(),), daemon=True)
    alive.start()
    liveness._end(alive)
    assert not alive.is_alive()
