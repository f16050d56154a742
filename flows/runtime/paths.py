"""Where the flows of one machine keep things: beside the checkout that they were started from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STATE_VARIABLE = "ZEROVL_FLOWS"
REPORTS_VARIABLE = "ZEROVL_REPORTS_URL"


@dataclass(frozen=True)
class Home:
    """`root` is the user's checkout: its git history, DVC cache, run state and registry are shared by all runs."""

    root: Path
    state: Path  # the flows' own: checkouts of runs, their reports, the server's files

    @classmethod
    def here(cls) -> Home:
        """The checkout of this file, or the one in `ZEROVL_ROOT`; state in `ZEROVL_FLOWS` (default: `.flows`)."""
        root = Path(os.environ.get("ZEROVL_ROOT") or Path(__file__).parents[2]).resolve()
        return cls(root, Path(os.environ.get(STATE_VARIABLE) or root / ".flows").resolve())

    @property
    def checkouts(self) -> Path:
        return self.state / "checkouts"

    @property
    def reports(self) -> Path:
        """Of finished runs, one folder each; served by `make ui`."""
        return self.state / "reports"

    @property
    def downloads(self) -> Path:
        """Models on their way into a checkout."""
        return self.state / "downloads"

    @property
    def runs(self) -> Path:
        """Run state of training by fingerprint: what another run with the same fingerprint resumes from."""
        return self.root / "runs"
