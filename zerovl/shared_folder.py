"""Folders that several users write in: a group's, or everybody's; what is made there stays theirs, whatever the umask.

A group's folder is one that its group may write and that hands its group on (setgid), everybody's one that others may
write. A folder that is neither stays its owner's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zerovl.errors import ZeroVLError


def is_shared(folder: Path) -> bool:
    """Whether a group writes there together: the folder hands its group on, and the group may write."""
    shared = stat.S_ISGID | stat.S_IWGRP
    return folder.stat().st_mode & shared == shared


def unshared(folder: Path) -> str:
    """Return what keeps its group from sharing a folder, as in "which cannot write in ..."; nothing where all is open.

    The folder itself need not be readable.
    """
    status = folder.stat()
    if is_shared(folder):
        return ""
    what = "which is not handed on (setgid) by" if status.st_mode & stat.S_IWGRP else "which cannot write in"
    return f"{what} {folder} ({stat.filemode(status.st_mode)}, of user {status.st_uid})"


def make_folder(folder: Path, root: Path) -> None:
    """Make a folder below `root`, `root` and those above; one in a shared folder is shared too.

    A process that was killed in between leaves a folder closed: below `root` its owner opens it the next time.
    """
    for path in reversed([path for path in (folder, *folder.parents) if root in path.parents or not path.exists()]):
        path.mkdir(exist_ok=True)
        if is_shared(path.parent) and not is_shared(path):
            with suppress(PermissionError):  # another user made it, who does the same
                path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_ISGID | stat.S_IRWXG)
    folder.mkdir(exist_ok=True)  # raises where it is a file


def open_file(descriptor: int, folder: Path) -> None:
    """Let those who may write in `folder` read and write an open file of it; another user's stays as it is."""
    if folder.stat().st_mode & stat.S_IWOTH:
        _allow(descriptor, 0o066)
    open_to_group(descriptor, folder)


def open_to_group(descriptor: int, folder: Path) -> None:
    """Let the group that shares `folder` read and write an open file of it; another user's stays as it is."""
    if is_shared(folder):
        _allow(descriptor, 0o060)


def _allow(descriptor: int, bits: int) -> None:
    with suppress(PermissionError):
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | bits)


def open_files(folder: Path) -> None:
    """Let the group that shares `folder` read and write the files in it that the caller made."""
    if is_shared(folder):
        for path in filter(Path.is_file, folder.iterdir()):
            with suppress(PermissionError):  # another user's
                path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o060)


def open_tree(folder: Path) -> None:
    """Let the group that shares the folder above have `folder`, and all that the caller made in it."""
    if not is_shared(folder.parent):
        return
    for path in (folder, *folder.rglob("*")):
        bits = stat.S_ISGID | stat.S_IRWXG if path.is_dir() else 0o060
        with suppress(PermissionError):  # of another user, who was interrupted; it was readable
            path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)


@contextmanager
def denied_explained(folder: Path, what: str, fix: str) -> Iterator[None]:
    """Turn an error of rights below `folder` into a `ZeroVLError`: the file, mode and owner of what is closed, the fix.

    Args:
        what: names the folder at the beginning of the message, as its setting does.
    """
    try:
        yield
    except PermissionError as error:
        raise ZeroVLError(f"{what}: {denied(error, folder)}; {fix}") from None


def denied(error: PermissionError, folder: Path) -> str:
    """Return what was refused, and mode and owner of the file or folder that refuses it."""
    path = Path(error.filename or folder)
    return f"{error} ({mode_and_owner(_refusing(path))})"


def mode_and_owner(path: Path) -> str:
    """Return who may do what with a file, as in `/srv/a is drwxr-xr-x, of user 61001`."""
    status = path.stat()
    return f"{path} is {stat.filemode(status.st_mode)}, of user {status.st_uid}"


def sharing_fix(folder: Path) -> str:
    """Return the commands that open a folder to a group."""
    return (
        f"where a group shares it, whoever owns what is there runs `chgrp -R GROUP {folder}; chmod -R g+rwX {folder}; "
        f"find {folder} -type d -exec chmod g+s {{}} +` once"
    )


def _refusing(path: Path) -> Path:
    """Return the file where it may be looked at, else the lowest folder above it that may."""
    for place in (path, *path.parents):
        with suppress(OSError):
            place.stat()
            return place
    return Path("/")
