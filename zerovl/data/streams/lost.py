"""What of a stream does not arrive in training: counted by its reason, with an example of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_MOST_REASONS = 40  # that are kept apart; reasons name lengths and keys, and a stream may have many
_MOST_SAID = 5  # of them, in one line
_OTHERS = "other reasons"


@dataclass
class Lost:
    """How many samples were lost for which reason; grows by a reason, never by a sample."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)  # of each reason the first, as URL:KEY

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count samples that are lost."""
        if reason not in self.counts and len(self.counts) >= _MOST_REASONS:
            reason = _OTHERS
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.examples.setdefault(reason, example)

    def add_all(self, other: Lost) -> list[str]:
        """Count what another one has; returns its reasons that were not known yet."""
        known = self.counts.keys() | set()
        for reason, count in other.counts.items():
            self.add(reason, other.examples[reason], count)
        return sorted(self.counts.keys() - known)

    def take(self) -> Lost:
        """Return what was counted since the last call, and begin again."""
        taken = Lost(self.counts, self.examples)
        self.counts, self.examples = {}, {}
        return taken

    def most_frequent(self) -> str:
        """Return the reasons that lost most, as text: "3 x empty caption, 1 x not a picture"."""
        reasons = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count:,} x {reason}" for reason, count in reasons[:_MOST_SAID])

    @property
    def total(self) -> int:
        """All that is lost."""
        return sum(self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is written to a file."""
        return {
            reason: {"count": count, "example": self.examples[reason]} for reason, count in sorted(self.counts.items())
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Lost:
        """Read what `as_dict` has written."""
        return cls(
            {reason: int(found["count"]) for reason, found in values.items()},
            {reason: str(found["example"]) for reason, found in values.items()},
        )
