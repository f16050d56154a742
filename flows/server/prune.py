"""`python -m flows.server.prune`: lists what runs of long ago left on this machine; with `--yes` removes it.

Checkouts of runs that failed, reports, and run state of training (checkpoints). Branches, DVC's cache and the
registry are not touched: from them a run's results can be had again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.runtime.git import CheckoutError, git
from flows.runtime.paths import Paths

_DAY = 86400.0


@dataclass(frozen=True)
class Leftover:
    """A folder that a run of long ago left."""

    kind: str
    path: Path
    days: float  # since anything in it was written
    size: int  # bytes on disk that nothing else has a link to

    def remove(self, paths: Paths) -> None:
        """Remove the folder; it is renamed first, so that what is half removed is never taken for whole."""
        if self.kind == "checkout":
            with suppress(CheckoutError):  # git may not know it any more
                git(paths.root, "worktree", "remove", "--force", str(self.path))
                return
        aside = self.path.with_name(f".{self.path.name}.gone")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(self.path, aside)
        shutil.rmtree(aside)


def leftovers(paths: Paths, days: float) -> list[Leftover]:
    """Return what nobody has written to for so many days and no process works in, the oldest first."""
    busy = _working_folders()
    found = []
    places = {
        "checkout": paths.checkouts,
        "reports": paths.reports,
        "download": paths.downloads,
        "run state": paths.runs,
    }
    for kind, folder in places.items():
        for path in _folders(folder):
            newest, size = _looked_at(path)
            age = (time.time() - newest) / _DAY
            if age >= days and not any(place.is_relative_to(path) for place in busy):
                found.append(Leftover(kind, path, age, size))
    return sorted(found, key=lambda each: -each.days)


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink())


def _looked_at(path: Path) -> tuple[float, int]:
    """When the newest of a folder's files was written, and their bytes; links out of it are not followed."""
    newest, size = path.stat().st_mtime, 0
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))
                newest = max(newest, status.st_mtime)
                size += status.st_size if status.st_nlink == 1 else 0
    return newest, size


def _working_folders() -> list[Path]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            found.append(Path(process.cwd()))
    return found


def main() -> None:
    """List leftovers, or remove them."""
    parser = argparse.ArgumentParser(prog="python -m flows.server.prune", description=__doc__)
    parser.add_argument("--days", type=float, default=30.0, help="not written to for as long (default: 30)")
    parser.add_argument("--yes", action="store_true", help="remove it; without, it is only listed")
    arguments = parser.parse_args()
    if arguments.days < 1:
        parser.error(f"--days {arguments.days:g}: at least 1, since training in progress may write as seldom as that")
    paths = Paths.here()
    found = leftovers(paths, arguments.days)
    for each in found:
        if arguments.yes:
            each.remove(paths)
        word = "removed" if arguments.yes else "would remove"
        print(f"{word} {each.kind} {each.path}: {each.days:.0f} days old, {each.size / 2**20:.0f} MiB")
    total = sum(each.size for each in found) / 2**20
    hint = "" if arguments.yes or not found else "; --yes removes it"
    print(f"{len(found)} older than {arguments.days:g} days, {total:.0f} MiB{hint}")


if __name__ == "__main__":
    main()
