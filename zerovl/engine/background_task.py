"""Work beside training, whose end or failure the main thread asks about."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


class BackgroundTask:
    """Work in a daemon thread, or none; an exception ends it and is kept in `error`."""

    def __init__(self, work: Callable[[], None] | None, error: Exception | None = None) -> None:
        """`error` is that of work which failed before there was a thread."""
        self.error = error
        self._thread = Thread(target=self._run, args=(work,), name="checkpoint", daemon=True) if work else None
        if self._thread:
            self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.error = error  # told by the main thread, which speaks with the other ranks

    @property
    def busy(self) -> bool:
        """Whether the work goes on."""
        return self._thread is not None and self._thread.is_alive()

    def join(self) -> None:
        """Wait for the end of the work."""
        if self._thread:
            self._thread.join()
