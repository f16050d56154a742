"""Whether DVC's cache, and its remotes that are folders, are open to the group that is to share them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zerovl.shared_folder import denied, is_shared, mode_and_owner

# Where DVC makes folders, of which one that is closed stops the others: files by the first digits of their digest, and
# what stages made of what ("runs").
_FOLDERS = ("", "files", "files/*", "files/*/*", "runs", "runs/*")


def findings(project: Path) -> Iterator[tuple[str, str]]:
    """Yield a level of `zerovl doctor` and a sentence for each folder of DVC's that is meant to be shared.

    Args:
        project: the folder that has `.dvc/`.
    """
    from dvc.config import Config

    config = Config(str(project / ".dvc"))
    cache = config["cache"]
    named = cache.get("dir")
    yield from _looked_at(Path(named or project / ".dvc" / "cache"), "cache", cache)
    for name, remote in config["remote"].items():
        if "://" not in remote["url"]:
            yield from _looked_at(Path(remote["url"]), f"remote.{name}", remote)


def _looked_at(folder: Path, key: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    what, meant = f"{key} {folder}", settings.get("shared") == "group"
    why = f"{key}.shared is group" if meant else "it belongs to a group"
    try:
        if not folder.is_dir():
            if meant:
                make = f"mkdir -p {folder}; chgrp GROUP {folder}; chmod 2770 {folder}"
                yield "note", f"{what}: {why}, and the folder is not there yet; make it for the group: `{make}`"
            return
        if not meant and not is_shared(folder):
            return
        problem = _problem(folder)
    except PermissionError as error:
        problem = f"you may not look into it: {denied(error, folder)}; {_sharing_fix(folder)}"
    if problem:
        yield "FAIL", f"{what}: {why}, but {problem}"
    elif meant:
        yield "ok", f"{what}: is shared by its group"
    else:
        fix = f"dvc config --local {key}.shared group"
        yield "note", f"{what}: {why}, but DVC may close to the others what you add there; run `{fix}`"


def _problem(folder: Path) -> str:
    """Return what keeps the group, or this user, from writing below a shared folder; nothing where all may."""
    for path in (path for pattern in _FOLDERS for path in _below(folder, pattern)):
        if not is_shared(path):
            return f"the group cannot share what is there: {mode_and_owner(path)}; {_sharing_fix(folder)}"
        if not os.access(path, os.W_OK | os.X_OK):
            return (
                f"you may not write there: {mode_and_owner(path)}, for the group {path.stat().st_gid}, which is none "
                "of yours; let root run `usermod -aG GROUP USER`, and log in again"
            )
    return ""


def _below(folder: Path, pattern: str) -> list[Path]:
    return [path for path in sorted(folder.glob(pattern)) if path.is_dir()] if pattern else [folder]


def _sharing_fix(folder: Path) -> str:
    """Return the commands that open folders and leave files as they are: DVC trusts those that nobody may write."""
    return (
        f"whoever owns what is there runs `chgrp -R GROUP {folder}; chmod -R g+rX {folder}; "
        f"find {folder} -type d -exec chmod g+ws {{}} +` once"
    )
