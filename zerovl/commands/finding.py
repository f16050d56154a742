"""What a check of `zerovl doctor` comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What one check came to, in a line."""

    level: str  # ok | note | FAIL
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject:<12} {self.text}"


Check = Callable[[], Iterator[Finding]]


def first_line(error: BaseException) -> str:
    """Return how an error begins, for a finding of one line."""
    return str(error).partition("\n")[0][:200]
