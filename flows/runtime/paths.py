"""Where the flows of one machine keep things: beside the checkout that they were started from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STATE_VARIABLE = "ZEROVL_FLOWS"
REPORTS_VARIABLE = "ZEROVL_REPORTS_URL"


@dataclass(frozen=True)
class Paths:
    """Folders of the flows; `root` is the user's checkout, whose history, cache, run state and registry all share."""

    root: Path
    state: Path  # the flows' own: checkouts of runs, their reports, the server's files

    @classmethod
    def here(cls) -> Paths:
        """Return the paths of this checkout or that in `ZEROVL_ROOT`; state: `ZEROVL_FLOWS`, else `.flows`."""
        root = Path(os.environ.get("ZEROVL_ROOT") or Path(__file__).parents[2]).resolve()
        return cls(root, Path(os.environ.get(STATE_VARIABLE) or root / ".flows").resolve())

    @property
    def checkouts(self) -> Path:
        """Return the folder of the runs' own checkouts."""
        return self.state / "checkouts"

    @property
    def reports(self) -> Path:
        """Return the folder of finished runs' reports, one folder each; served by `make ui`."""
        return self.state / "reports"

    @property
    def downloads(self) -> Path:
        """Return the folder of models on their way into a checkout."""
        return self.state / "downloads"

    @property
    def runs(self) -> Path:
        """Return the folder of training's run state by fingerprint, from which an equal run resumes."""
        return self.root / "runs"

    @property
    def tar_indexes(self) -> Path:
        """Return the folder of what is in tars that stay where they lie, so that no run reads them all again."""
        return self.root / "data" / ".tars"
