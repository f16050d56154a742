"""From a reference to a folder on this machine: `zerovl.load`'s first half.

References:

    path/to/model                        a bundle's folder, as it is
    NAME@ALIAS, NAME@3                   in the default store
    s3://bucket/prefix/NAME@ALIAS        in a bucket
    /path/to/store/NAME@ALIAS            in another folder

Releases are kept in `ZEROVL_CACHE` (default: ~/.cache/zerovl), one folder for each store and identity,
shared by any number of processes. Their digests are checked on arrival. A stamp keeps size and time of
each file, so that later uses are cheap; where the stamp differs, all digests are checked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.registry import bundle
from zerovl.registry.locks import locked
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry, aside_folder, writing
from zerovl.registry.store import open_store

_STAMP = ".verified.json"


def resolve(reference: str) -> Path:
    """The folder of a bundle, fetched first where it is a release; raises `ZeroVLError`."""
    folder = Path(reference).expanduser()
    if folder.is_dir():
        if not bundle.is_bundle(folder):
            raise ZeroVLError(f"{reference}: the folder has no {bundle.CONFIG} and {bundle.WEIGHTS}, so it is no model")
        return folder
    if "@" not in reference:
        raise ZeroVLError(
            f"{reference!r}: no such folder; name a bundle's folder, NAME@ALIAS or s3://bucket/NAME@ALIAS"
        )
    uri, name = split_store(reference)
    registry = Registry(open_store(uri))
    return cached(registry, registry.resolve(name), cache_folder())


def split_store(reference: str) -> tuple[str, str]:
    """`STORE/NAME@LABEL` -> (store, "NAME@LABEL"); without a store the default one."""
    place, _, label = reference.rpartition("@")
    store, separator, name = place.rpartition("/")
    if separator and not store:
        store = "/"
    return (store if separator else default_store()), f"{name}@{label}"


def default_store() -> str:
    """`ZEROVL_STORE`, else `register.store` of ./params.yaml, else ./registry."""
    if store := os.environ.get("ZEROVL_STORE"):
        return store
    path = Path("params.yaml")
    if path.is_file():
        from zerovl import params

        section = params.read_yaml(path).get("register")
        if isinstance(section, dict) and isinstance(section.get("store"), str):
            return str(section["store"])
    return "registry"


def cache_folder() -> Path:
    return Path(os.environ.get("ZEROVL_CACHE") or "~/.cache/zerovl").expanduser()


def cached(registry: Registry, version: Version, cache: Path) -> Path:
    """The folder of a version in the cache, fetched or repaired where it is not whole."""
    place = hashlib.sha256(registry.store.describe().encode()).hexdigest()[:16]
    folder = cache.absolute() / place / version.identity / version.name
    if _stamp_fits(folder, version):
        return folder
    with writing(version, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent) as alone:
            if _stamp_fits(folder, version):
                return folder  # another process was faster
            if _is_whole(folder, version):
                _write_stamp(folder, version)
                return folder
            aside = aside_folder(folder, version, alone)
            registry.fill(version, aside)
            _write_stamp(aside, version)
            _put_in_place(aside, folder, version)
    return folder


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


def _is_whole(folder: Path, version: Version) -> bool:
    return all(
        (folder / path).is_file() and bundle.describe_file(folder / path) == info
        for path, info in version.files.items()
    )


def _stamp_fits(folder: Path, version: Version) -> bool:
    try:
        return bool(json.loads((folder / _STAMP).read_text()) == _stamp(folder, version))
    except (OSError, ValueError):
        return False


def _write_stamp(folder: Path, version: Version) -> None:
    aside = folder / f"{_STAMP}.{os.getpid()}.part"
    aside.write_text(json.dumps(_stamp(folder, version)))
    os.replace(aside, folder / _STAMP)


def _stamp(folder: Path, version: Version) -> dict[str, Any]:
    status = {path: (folder / path).stat() for path in version.files}
    return {path: [status[path].st_size, status[path].st_mtime_ns, info.sha256] for path, info in version.files.items()}
