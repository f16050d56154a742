"""Whether a flow's worker is alive, and whether the server knows that the flow is."""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import suppress
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings
from prefect.states import Running

from flows.runtime.told_to_end import WORKER, tell

LOST = "no sign of life from its process for 90 s"  # the automation's message, see flows.server.deploy
_LIVES = "its process lives, the server was away"
HEARTBEAT = "prefect.flow-run.heartbeat"
_POLL = 1.0  # seconds
LOOK_VARIABLE = "ZEROVL_LOOK_SECONDS"
LOOK_SECONDS = 30.0  # between two looks at what the server says of the run
_END_SECONDS = 5.0  # that the end of the process waits for a look
_ends = threading.Event()


def follow_worker(run: str | None) -> None:
    """Send SIGTERM to this process when its worker is gone, and correct the server where it takes a live run for lost.

    A run from a terminal has no worker: `nohup` and a closed window are the user's to decide on.
    """
    if run is None:
        return
    if WORKER in os.environ:
        threading.Thread(target=_watch_parent, name="liveness", daemon=True).start()
    if get_current_settings().api.url:
        alive = threading.Thread(target=_say_alive, args=(UUID(run),), name="alive", daemon=True)
        alive.start()
        atexit.register(_end, alive)


def _watch_parent() -> None:
    parent = os.getppid()
    # Prefect takes seconds to import; a worker that died meanwhile has been replaced by init already.
    orphan = parent == 1 and "prefect" not in " ".join(psutil.Process(1).cmdline())
    while not orphan and os.getppid() == parent:
        time.sleep(_POLL)
    tell(is_cancelled=False)


def _end(alive: threading.Thread) -> None:
    """Let a look come to its end: Python ends threads in the midst of compiled code by aborting the process."""
    _ends.set()
    alive.join(timeout=_END_SECONDS)


def _say_alive(run: UUID) -> None:
    """Correct three things that go wrong after a time without a server.

    The server's clock may run out before the first new heartbeat arrives: it takes the run for lost. And
    the worker has stopped listening for cancellations of the runs that it had (a run from a terminal never
    had one): a run that is still being cancelled at a second look ends itself, unless it has heard of that, as a
    training that saves a large checkpoint. So does one that was being cancelled when it was taken for lost: its
    end is on the server already, and it must not promote anything.
    """
    cancelling, pause = False, float(os.environ.get(LOOK_VARIABLE) or LOOK_SECONDS)
    if _ends.wait(pause):
        return  # a short run needs no client
    # No retries: their growing pauses would outlast the server's return by minutes. One client for all looks: making
    # one costs ten times the CPU time of the look itself.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        while True:
            with suppress(httpx.HTTPError, OSError):
                state = client.read_flow_run(run).state
                if state and state.is_crashed() and LOST in (state.message or ""):
                    client.set_flow_run_state(run, Running(message=_LIVES), force=True)
                ended = state and state.is_cancelled() and LOST in (state.message or "")
                unheard = cancelling and state and state.is_cancelling()
                if ended or unheard:
                    tell(is_cancelled=True)
                    return
                cancelling = bool(state and state.is_cancelling())
            if _ends.wait(pause):
                return
