"""DVC's lock of a checkout on a file system without flock(2), and the one of hard links that it has instead."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import missing_locks

KEY = "hardlink_lock"  # of the section core
_FILES = ("lock", "rwlock.lock")  # below .dvc/tmp
_MOUNT = "mount it with locks (Lustre: -o flock)"


def findings(project: Path) -> Iterator[tuple[str, str]]:
    """Yield a level of `zerovl doctor` and a sentence: whether DVC can lock the checkout `project`, and by what."""
    problem, links_do = _look(project)
    if problem:
        yield "FAIL", problem
    elif links_do:
        yield (
            "note",
            f"{_folder(project)}: DVC locks by hard links (core.{KEY}), and a DVC that is killed leaves its lock: "
            f"`{_remove(project)}`, once no other runs here",
        )
    else:
        yield "ok", f"{_folder(project)} can be locked"


def require(project: Path) -> None:
    """Raise `ZeroVLError` with the command that helps where DVC cannot lock the checkout `project`."""
    if (project / ".dvc").is_dir() and (problem := _look(project)[0]):
        raise ZeroVLError(problem)


def use_links_where_needed(project: Path) -> str:
    """Let DVC lock by hard links in a checkout of a run's own whose file system has no locks.

    Returns:
        What was set and why, "" where nothing was.

    Raises:
        ZeroVLError: the file system has no hard links either.
    """
    from dvc.config import Config

    missing = _no_locks(_folder(project))
    config = Config(str(project / ".dvc"))
    if not missing or config["core"].get(KEY):
        return ""
    _require_links(project, missing)
    for file in _FILES:  # made before flock failed; DVC would take it for another's lock
        (_folder(project) / file).unlink(missing_ok=True)
    with config.edit("local") as local:
        local["core"][KEY] = True
    return (
        f"{_folder(project)}: its file system has no locks ({missing}); DVC locks by hard links in this checkout "
        f"(core.{KEY})"
    )


def remove_left(project: Path) -> None:
    """Remove the hard links that a DVC left as its locks when it was killed; none may run in `project` now.

    It would take them for another's for a year. A lock that is not a link is freed by the kernel.
    """
    for file in _FILES:
        with suppress(FileNotFoundError):
            path = _folder(project) / file
            if path.stat().st_nlink > 1:
                path.unlink()


def _look(project: Path) -> tuple[str, bool]:
    """Return what keeps DVC from locking a checkout, with its fix ("": nothing), and whether it locks by links."""
    from dvc.config import Config

    links_do = bool(Config(str(project / ".dvc"))["core"].get(KEY))
    try:
        missing = _no_locks(_folder(project))
        if missing or links_do:
            _require_links(project, missing)
    except ZeroVLError as error:
        return str(error), links_do
    except OSError as error:
        return f"{_folder(project)}: cannot be written ({error}), which every command of DVC does", links_do
    if missing and not links_do:
        return (
            f"{_folder(project)}: its file system has no locks ({missing}), so that DVC says 'Unable to acquire lock'; "
            f"{_MOUNT}, or let DVC lock by hard links, all but `dvc exp run --queue`: `{_remove(project)}; dvc config "
            f"--local core.{KEY} true`"
        ), links_do
    return "", links_do


def _folder(project: Path) -> Path:
    """Return the folder where DVC has its locks."""
    return project / ".dvc" / "tmp"


def _remove(project: Path) -> str:
    return f"rm -f {' '.join(str(_folder(project) / file) for file in _FILES)}"


def _no_locks(folder: Path) -> str:
    """Return what flock(2) says where it cannot lock a file of `folder`; "" where it can."""
    folder.mkdir(parents=True, exist_ok=True)
    return missing_locks(folder)


def _require_links(project: Path, missing: str) -> None:
    """Raise `ZeroVLError` where no file of a checkout can have a second name."""
    folder = _folder(project)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        link = Path(f"{file.name}.link")
        try:
            os.link(file.name, link)
        except OSError as error:
            neither = f"no locks ({missing}) and " if missing else f"core.{KEY} is set, and the file system has "
            raise ZeroVLError(
                f"{folder}: {neither}no hard links ({os.strerror(error.errno or 0)}), so that DVC cannot lock; {_MOUNT}"
                ", or work on another disk"
            ) from None
        link.unlink()
