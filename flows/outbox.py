"""Pages of the Artifacts tab on their way to the server: sent by a thread, again where the server does not take them.

The outbox of a run also waits for other threads that send, as those of progress bars do.

A server on SQLite refuses requests while it is busy, with 503 or 500 after up to a minute each. Neither the work that a
page is about nor the page may be lost with it: the run goes on, and the page is sent again for five minutes.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.utilities.context import get_task_and_flow_run_ids

from flows.runtime.told_to_end import LAST_SECONDS, hears_of_it, told

UNSENT = "unsent-pages"  # folder among a run's reports
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before a page is sent again; the last one for all after it
_PATIENCE = 300.0  # seconds after which a page is not sent again
_LAST_SECONDS = 10.0  # how long a run that failed waits for its pages
_END_SECONDS = 2.0  # that the end waits for a request that is under way
_PASSING = (408, 409, 429)  # of the statuses below 500, those that another attempt may not meet again


@dataclass(frozen=True)
class Page:
    """A page of the Artifacts tab."""

    key: str  # lowercase letters, digits and dashes: the page's name in the tab
    description: str  # a line of markdown
    data: str  # markdown, or JSON rows of a table
    kind: str = "markdown"  # or "table"


@dataclass
class _Letter:
    """A page that is to be sent."""

    page: Page
    flow_run: UUID | None
    task_run: UUID | None
    since: float
    due: float
    attempts: int = 0
    error: str = "the run ended before it was sent"


class Outbox:
    """Holds pages until the server has them; a later page of the same key takes the place of one that waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Letter] = {}
        self._given_up: dict[str, _Letter] = {}
        self._senders: list[threading.Thread] = []
        self._closed = False
        self._changed = threading.Condition()
        # The thread sends with the settings of whoever made the outbox.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="outbox", daemon=True)
        self._thread.start()

    def put(self, page: Page) -> None:
        """Send a page of the run that calls, soon; never waits for the server."""
        task_run, flow_run = get_task_and_flow_run_ids()
        now = time.monotonic()
        with self._changed:
            self._given_up.pop(page.key, None)
            self._waiting[page.key] = _Letter(page, flow_run, task_run, since=now, due=now)
            self._changed.notify_all()

    def wait_for(self, sender: threading.Thread) -> None:
        """Let `close` wait for a thread that sends something itself, and ends once that is sent or given up."""
        self._senders.append(sender)

    def close(self, seconds: float) -> list[tuple[Page, str]]:
        """Wait until every page is sent or given up and the other senders have ended, for so many seconds at most.

        Returns pages that the server does not have, and why.
        """
        deadline = time.monotonic() + seconds
        for sender in self._senders:
            sender.join(timeout=max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=max(0.0, deadline - time.monotonic()))
            self._closed = True
            self._changed.notify_all()
            left = [*self._given_up.values(), *self._waiting.values()]
        # Python's end would meet it in the midst of compiled code, and abort the process.
        self._thread.join(timeout=_END_SECONDS)
        return [(letter.page, letter.error) for letter in left]

    def _work(self) -> None:
        # No retries of the client's own: its growing pauses would hold up the pages behind.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            while letter := self._next():
                failed = _attempt(client, letter)
                with self._changed:
                    if failed is None:
                        self._forget(letter)
                    else:
                        self._postpone(letter, failed)
                    self._changed.notify_all()

    def _next(self) -> _Letter | None:
        """Wait for the next page that is due; None at the end."""
        with self._changed:
            while not self._closed:
                first = min(self._waiting.values(), key=lambda letter: letter.due, default=None)
                pause = first.due - time.monotonic() if first else None
                if first and pause is not None and pause <= 0:
                    return first
                self._changed.wait(pause)
            return None

    def _forget(self, letter: _Letter) -> None:
        if self._waiting.get(letter.page.key) is letter:
            del self._waiting[letter.page.key]

    def _postpone(self, letter: _Letter, error: Exception) -> None:
        letter.error = f"{type(error).__name__}: {error}"
        letter.due = time.monotonic() + _PAUSES[min(letter.attempts, len(_PAUSES) - 1)]
        letter.attempts += 1
        superseded = self._waiting.get(letter.page.key) is not letter
        if not superseded and (not may_pass(error) or letter.due > letter.since + _PATIENCE):
            self._forget(letter)
            self._given_up[letter.page.key] = letter


def may_pass(error: Exception) -> bool:
    """Return whether the server may take later what it did not take now."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in _PASSING
    return isinstance(error, httpx.HTTPError)


def _attempt(client: SyncPrefectClient, letter: _Letter) -> Exception | None:
    """Create the artifact, unless an attempt whose answer was lost has created it; returns what went wrong."""
    page = letter.page
    try:
        if letter.attempts and letter.flow_run:
            key, run = ArtifactFilterKey(any_=[page.key]), ArtifactFilterFlowRunId(any_=[letter.flow_run])
            there = client.read_artifacts(artifact_filter=ArtifactFilter(key=key, flow_run_id=run))
            if any(each.data == page.data for each in there):
                return None
        client.create_artifact(
            ArtifactCreate(
                type=page.kind, key=page.key, description=page.description, data=page.data,
                flow_run_id=letter.flow_run, task_run_id=letter.task_run,
            )
        )  # fmt: skip
    except Exception as error:
        return error
    return None


_open: contextvars.ContextVar[Outbox] = contextvars.ContextVar("outbox")


def send(page: Page) -> None:
    """Send a page through the outbox that is open."""
    _open.get().put(page)


def wait_also_for(sender: threading.Thread) -> None:
    """Let the outbox that is open, if one is, wait at its end for another thread that sends."""
    if (opened := _open.get(None)) is not None:
        opened.wait_for(sender)


@contextmanager
def outbox(folder: Path) -> Iterator[None]:
    """Open an outbox for a run; at its end, what the server has not taken is in the log and in `folder`/unsent-pages.

    A run that comes to its end waits until each page is there or five minutes old, one that fails for ten seconds, one
    that was told to end for three.
    """
    opened = Outbox()
    token = _open.set(opened)
    seconds = _LAST_SECONDS
    try:
        with hears_of_it():
            yield
        seconds = _PATIENCE + _PAUSES[-1]
    finally:
        _open.reset(token)
        for page, error in opened.close(LAST_SECONDS if told.is_set() else seconds):
            file = keep(page, folder / UNSENT)
            get_run_logger().warning("page %s did not reach the Artifacts tab (%s); it is in %s", page.key, error, file)


def keep(page: Page, folder: Path) -> Path:
    """Write a page to a file, named by its key; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    if page.kind == "table":
        file = folder / f"{page.key}.json"
        file.write_text(page.data, encoding="utf-8")
    else:
        file = folder / f"{page.key}.md"
        file.write_text(f"{page.description}\n\n{page.data}\n", encoding="utf-8")
    return file
