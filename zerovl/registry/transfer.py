"""The files of a version between a store and a folder, every digest compared on the way.

Files arrive in a hidden folder beside the one that is asked for, which is renamed when all are whole.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import disk_is_full, locked, sync_folder
from zerovl.registry import blobs, keys, notes
from zerovl.registry.notes import RetiredError
from zerovl.registry.records import Version
from zerovl.registry.release_files import describe_file
from zerovl.registry.stores.base import MissingKeyError, Store
from zerovl.text_format import file_size


class DamagedError(ZeroVLError):
    """A file of a release does not have the digest that its version says."""


def verify(store: Store, version: Version) -> None:
    """Read every byte of a version in the store.

    Raises:
        DamagedError: names all files that differ.
        RetiredError: files are gone, and the version was retired, or they were withdrawn just now.
    """
    problems = []
    for path, info in version.files.items():
        found = blobs.read_digest(store, version.name, info.sha256)
        if found is None:
            _require_missing_is_damage(store, version, path)
        if found != info.sha256:
            problems.append(_damage(store, version, path, found or "nothing"))
    if problems:
        raise DamagedError("\n".join(problems))


def pull(store: Store, version: Version, folder: Path) -> None:
    """Fetch a version into a folder that is empty or not there yet; every digest is checked.

    Raises:
        DamagedError: what the store has of it is not what was published.
        ZeroVLError: the folder is not empty, or cannot be written.
    """
    folder = folder.absolute()
    with writing(version, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent) as alone:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise ZeroVLError(f"{folder}: exists and is not empty; name another folder, or remove it")
            aside = aside_folder(folder, version, alone)
            fill(store, version, aside)
            os.rename(aside, folder)
        sync_folder(folder.parent)


def fill(store: Store, version: Version, aside: Path) -> None:
    """Fetch the files of a version into `aside`, for the caller to rename; goes on where it was cut off.

    What is damaged, or does not fit the disk, is removed again.
    """
    try:
        for path in version.files:
            fetch_file(store, version, path, aside / path)
        for found in [found for found in aside.rglob("*") if found.is_file()]:
            if found.relative_to(aside).as_posix() not in version.files:
                found.unlink()  # a part of a download that was killed
        for folder in [aside, *(path for path in aside.rglob("*") if path.is_dir())]:
            sync_folder(folder)
    except (OSError, DamagedError, RetiredError):
        shutil.rmtree(aside, ignore_errors=True)
        raise


def fetch_file(store: Store, version: Version, path: str, target: Path) -> None:
    """Fetch one file of a version to `target`, its digest checked; goes on where it was cut off.

    Raises:
        DamagedError: the file is not what the version says, or is not in the store.
        RetiredError: it is not in the store any more, since the version was retired, or the file withdrawn just now.
    """
    info = version.files[path]
    if target.exists() and describe_file(target) == info:
        return  # whole since an earlier, interrupted pull
    # Twice: what an interrupted pull left, and the first download goes on with, may be what is damaged.
    for _ in range(2):
        try:
            blobs.download(store, version.name, info.sha256, target)
        except MissingKeyError:
            _require_missing_is_damage(store, version, path)
            raise DamagedError(_damage(store, version, path, "nothing")) from None
        found = describe_file(target)
        if found == info:
            return
        target.unlink()
    raise DamagedError(_damage(store, version, path, found.sha256))


def aside_folder(folder: Path, version: Version, alone: bool) -> Path:
    """Return where `fill` works: a known place, to go on there, unless others may work there too."""
    tag = version.identity[:12] if alone else uuid.uuid4().hex
    return folder.with_name(f".{folder.name}.{tag}.part")


@contextmanager
def writing(version: Version, folder: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `ZeroVLError` that names the folder and the fix."""
    try:
        yield
    except OSError as error:
        full = disk_is_full(error)
        fix = f"free {file_size(version.size)} there" if full else "check the folder, or name another"
        raise ZeroVLError(f"{folder}: cannot write {version.reference} there: {error}; {fix}") from None


def _require_missing_is_damage(store: Store, version: Version, path: str) -> None:
    """Raise `RetiredError` for a file that is not there because someone removed it."""
    said = notes.of_version(store, version.name, version.number)
    notes.require_in_use(version, said)
    if notes.as_it_is_now(version, said).files[path] != version.files[path]:
        raise RetiredError(f"{path} of {version.reference} was replaced by another just now; run it again")


def _damage(store: Store, version: Version, path: str, found: str) -> str:
    expected = version.files[path].sha256
    return (
        f"{store.describe()}: {path} of {version.reference} is damaged: expected sha256 {expected}, "
        f"found {found}; use another version, or delete {keys.blob(version.name, expected)} and register "
        "the same model again"
    )
