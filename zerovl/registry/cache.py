"""Releases on this machine, in `ZEROVL_CACHE` (default: ~/.cache/zerovl), shared by any number of processes.

Users share one where its folder is a group's (`zerovl.shared_folder`).

    STORE/IDENTITY/NAME/...      a release; STORE is a digest of the store's description
    STORE/NAME@LABEL.json        what the store last said of a label (`zerovl.registry.last_seen`)
    models/FOLDER.json           digests of models that were read whole (`zerovl.registry.known_models`)

Digests are checked on arrival. A stamp keeps size and time of each file, so that later uses are
cheap; where it differs, all digests are checked again. The stamp's own time says when the release
was last used: past `ZEROVL_CACHE_GB` (default: 20) the least recently used ones are removed.

The folder IDENTITY carries the lock. It stays when its release is removed, so that nobody ever holds
the lock of a folder that is no longer there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.files import locked, locked_if_free, shared
from zerovl.registry import release_files, transfer
from zerovl.registry.records import Version
from zerovl.registry.stores.base import Store
from zerovl.shared_folder import denied_explained, make_folder, open_file, open_tree, sharing_fix
from zerovl.workspace import Workspace

FOLDER_VARIABLE = "ZEROVL_CACHE"
SIZE_VARIABLE = "ZEROVL_CACHE_GB"

_STAMP = ".verified.json"
_DEFAULT_GB = "20"
_ATTEMPTS = 5  # to hold what was fetched, in a cache that is far too small for its users


def cache_folder() -> Path:
    """Return the folder of the cache, as the environment names it."""
    return Workspace().shared / Path(os.environ.get(FOLDER_VARIABLE) or "~/.cache/zerovl").expanduser()


def rights_explained() -> AbstractContextManager[None]:
    """Explain errors of rights in the cache, which several users may name."""
    folder = cache_folder().absolute()
    fix = f"{sharing_fix(folder)}; or name a folder of your own with {FOLDER_VARIABLE}"
    return denied_explained(folder, f"{FOLDER_VARIABLE} {folder}", fix)


def cached(store: Store, version: Version) -> Path:
    """Return the folder of a version in the cache, fetched or repaired where it is not whole."""
    limit = _limit_bytes()
    folder = _place(store, version)
    if _stamp_fits(folder, version):
        _touch(folder)
        return folder
    with transfer.writing(version, folder), rights_explained():
        make_folder(folder.parent, cache_folder().absolute())
        with locked(folder.parent) as alone:
            if _stamp_fits(folder, version):
                return folder  # another process was faster
            if _is_whole(folder, version):
                _write_stamp(folder, version)
                return folder
            aside = transfer.aside_folder(folder, version, alone)
            make_folder(aside, folder.parent)
            transfer.fill(store, version, aside)
            _write_stamp(aside, version)
            open_tree(aside)
            _put_in_place(aside, folder, version)
            if alone:
                _make_room(cache_folder().absolute(), folder.parent, limit)
    return folder


def is_there(store: Store, version: Version) -> bool:
    """Return whether a version is in the cache, whole as far as sizes and times tell."""
    return _stamp_fits(_place(store, version), version)


@contextmanager
def held(store: Store, version: Version) -> Iterator[Path]:
    """Give the folder of a version as `cached` does; it stays until the block ends, whatever others fetch."""
    for attempt in range(1, _ATTEMPTS + 1):
        folder = cached(store, version)
        with shared(folder.parent) as locks:
            # Someone may have removed it in between; without locks nobody removes anything.
            if not locks or _stamp_fits(folder, version) or attempt == _ATTEMPTS:
                yield folder
                return


@contextmanager
def held_as_stored(store: Store, version: Version) -> Iterator[Path]:
    """Give the folder as `held` does; every byte in the store is compared, also of a version that is in the cache."""
    if _place(store, version).exists():
        transfer.verify(store, version)
    with held(store, version) as folder:
        yield folder


def store_folder(store: Store) -> Path:
    """Return the folder of what comes from a store."""
    return cache_folder().absolute() / hashlib.sha256(store.describe().encode()).hexdigest()[:16]


def _place(store: Store, version: Version) -> Path:
    return store_folder(store) / version.identity / version.name


def _put_in_place(aside: Path, folder: Path, version: Version) -> None:
    """Rename `aside` to `folder`; a damaged one that lies there is moved away first, for its readers' sake."""
    if folder.exists():
        if _is_whole(folder, version):  # without locks, someone else may have put it there
            shutil.rmtree(aside)
            return
        damaged = aside.with_name(f"{aside.name}.damaged")
        os.rename(folder, damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    os.rename(aside, folder)


# -- the bound


def _limit_bytes() -> float:
    text = os.environ.get(SIZE_VARIABLE) or _DEFAULT_GB
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ZeroVLError(f"{SIZE_VARIABLE}={text!r}: expected a number of gigabytes, 0 or more, as in 20")
    return limit


def _make_room(cache: Path, keep: Path, limit: float) -> None:
    """Remove what was used longest ago until the cache has at most `limit` bytes.

    `keep` stays, and so does what another process fetches or loads right now: it holds the lock.
    """
    entries = [(*_use(entry), entry) for entry in cache.glob("*/*") if entry.is_dir()]
    total = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= limit:
            return
        if entry == keep or not size:
            continue
        with locked_if_free(entry) as alone:
            if alone:
                _empty(entry)
                total -= size


def _use(entry: Path) -> tuple[float, int]:
    """When an entry was last used, and its bytes; rests of killed downloads count too."""
    stamps, size = [], 0
    for folder, _, names in os.walk(entry):  # passes over what disappears meanwhile
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))
                size += status.st_size
                if name == _STAMP:
                    stamps.append(status.st_mtime)
    return max(stamps, default=entry.stat().st_mtime), size


def _empty(entry: Path) -> None:
    """Files that a reader has open, or mapped, stay readable for it."""
    for folder in entry.iterdir():
        shutil.rmtree(folder, ignore_errors=True)


# -- the stamp


def _touch(folder: Path) -> None:
    with suppress(OSError):  # removed just now, or someone else's
        os.utime(folder / _STAMP)


def _is_whole(folder: Path, version: Version) -> bool:
    return all(
        (folder / path).is_file() and release_files.describe_file(folder / path) == info
        for path, info in version.files.items()
    )


def _stamp_fits(folder: Path, version: Version) -> bool:
    try:
        return bool(json.loads((folder / _STAMP).read_text()) == _stamp(folder, version))
    except (OSError, ValueError):
        return False


def _write_stamp(folder: Path, version: Version) -> None:
    aside = folder / f"{_STAMP}.{os.getpid()}.part"
    with open(aside, "w", encoding="utf-8") as file:
        json.dump(_stamp(folder, version), file)
        open_file(file.fileno(), folder)
    os.replace(aside, folder / _STAMP)


def _stamp(folder: Path, version: Version) -> dict[str, Any]:
    status = {path: (folder / path).stat() for path in version.files}
    return {path: [status[path].st_size, status[path].st_mtime_ns, info.sha256] for path, info in version.files.items()}
