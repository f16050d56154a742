"""A request to stop that comes at a known step."""

from zerovl.engine.trainer import StopRequest


class StopAfter(StopRequest):
    """A request that comes in the step that makes it so many."""

    def __init__(self, steps: int) -> None:
        self.save_asked = False
        self._left = steps

    @property
    def name(self) -> str | None:  # type: ignore[override]
        self._left -= 1
        return "SIGTERM" if self._left <= 0 else None
