"""What a kind of odd input is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What `prepare` makes of a source: pairs, quarantined inputs and the reason of one; or a refusal in one line."""

    pairs: int
    broken: int
    says: str = ""

    @property
    def sentence(self) -> str:
        """The outcome for the documentation."""
        says = f": {self.says}" if self.says else ""
        if self.pairs < 0:
            return f"refused{says}"
        return f"{self.pairs} used, {self.broken} quarantined{says}" if self.broken else f"{self.pairs} used"


def refused(says: str) -> Outcome:
    """The source as a whole cannot be read."""
    return Outcome(-1, 0, says)


@dataclass(frozen=True)
class Kind:
    """One kind of broken or odd input among good ones.

    Attributes:
        of: the form that it is broken in: "tar".
        what: what is odd about it.
        write: makes the source's folder, which is there and empty.
        outcome: what comes of it.
    """

    of: str
    what: str
    write: Callable[[Path], None]
    outcome: Outcome
