"""What git and DVC of a test see: no settings of the machine, and an author."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def versioned_environment(folder: Path) -> dict[str, str]:
    """Return the variables for commands in a repository of the test's own; `folder` exists and holds nothing of it."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": str(folder / "no-config"),
        "DVC_NO_ANALYTICS": "1",
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }


def make_dvc_project(folder: Path) -> None:
    """What `dvc init` makes of a folder that matters here, without a second of imports."""
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").touch()
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
