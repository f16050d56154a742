"""An S3 server that is killed while it is read from, and that comes back after a client has waited for it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from tests.support import s3


class ServerAway:
    """rclone over a folder: killed before the read of a number, served again at its address when `come_back` is called.

    Threads of a client may call everything at once.
    """

    def __init__(self, folder: Path, killed_at: int) -> None:
        self.reads = 0
        self.away = False
        self._folder, self._killed_at = folder, killed_at
        self._lock, self._running = threading.Lock(), ExitStack()
        self.url = self._running.enter_context(s3.rclone(folder))

    def count_a_read(self) -> None:
        """Kill the server where this read is the one to do so."""
        with self._lock:
            self.reads += 1
            if self.reads == self._killed_at:
                self._running.close()
                self.away = True

    def come_back(self) -> None:
        """Serve again, where the server is away."""
        with self._lock:
            if self.away:
                self._running.enter_context(s3.rclone(self._folder, urlsplit(self.url).port or 0))
                self.away = False

    def __enter__(self) -> ServerAway:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()


class WaitedFor:
    """Stands for the module `time` where a client waits for the server: waits pass at once, and end its absence.

    Attributes:
        longest: seconds that a thread has waited.
    """

    def __init__(self, server: ServerAway, seconds: float) -> None:
        self.longest = 0.0
        self._server, self._seconds = server, seconds
        self._own = threading.local()  # each thread waits for itself

    def monotonic(self) -> float:
        """Return the seconds that this thread has waited."""
        return float(getattr(self._own, "waited", 0.0))

    def sleep(self, seconds: float) -> None:
        """Let this thread wait."""
        self._own.waited = self.monotonic() + seconds
        self.longest = max(self.longest, self._own.waited)
        if self._own.waited >= self._seconds:
            self._server.come_back()
