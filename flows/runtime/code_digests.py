"""What the stages run, of two commits: a change that no stage runs, as of a page or a comment, makes no other model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.runtime.git import git
from zerovl.kept_syntax import hand_on

# A module that the folder lacks would come from where the project is installed.
_PROGRAM = """
import json
from pathlib import Path
from zerovl import code_closure
assert code_closure.PACKAGE == Path("zerovl").resolve()
print(json.dumps({stage: code_closure.digests(stage) for stage in code_closure.STAGES}))
"""

# What Python 3.14 does by itself. Python 3.11 and 3.12 have it from a bug fix on: 3.11.2 of Debian 12 lacks it, and its
# `extractall` has no argument for it (https://docs.python.org/3/library/tarfile.html#extraction-filters).
_PLAIN = getattr(tarfile, "data_filter", None)


@contextmanager
def exported(root: Path, commit: str) -> Iterator[Path]:
    """Give a folder with the files of a commit, without a worktree or a branch of it; it is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        there, archive = Path(folder) / "commit", Path(folder) / "commit.tar"
        git(root, "archive", "--output", str(archive), commit)
        with tarfile.open(archive) as tar:
            tar.extraction_filter = _PLAIN
            tar.extractall(there)
        yield there


def run_there(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder with the code that lies in it."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def unlike(checkout: Path, commit: str) -> set[str] | None:
    """Return the files of `zerovl/` that a stage runs otherwise than at a commit; None where its code cannot say."""
    ours = _digests(checkout)
    with exported(checkout, commit) as there:
        hand_on(checkout / "zerovl", there / "zerovl")
        theirs = _digests(there)
    if ours is None or theirs is None:
        return None
    return {
        f"zerovl/{name}"
        for stage in ours.keys() | theirs.keys()
        for name, _ in ours.get(stage, {}).items() ^ theirs.get(stage, {}).items()
    }


def _digests(folder: Path) -> dict[str, dict[str, str]] | None:
    """Return the digest of each file that a stage runs, by stage; None where the code is from before they were made."""
    done = run_there(folder, ["-c", _PROGRAM])
    return json.loads(done.stdout) if done.returncode == 0 else None
