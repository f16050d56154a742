"""Digests of models that were read whole on this machine, so that a search by words need not read them whole again.

    ZEROVL_CACHE/models/FOLDER.json    {"files": {name: [size, times, inode] or null}, "digest": ..., versions}

FOLDER is a digest of the model folder's path. A digest is believed while every file that it was computed from is the
same by size, both of its times and inode: no edit leaves the time of a file's last change (`st_ctime`) as it was,
whatever it does to the others. Where anything differs, all is read and compared as ever. A model that was changed just
before it was read is not kept: a second change within the clock's step would not be seen.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zerovl import bundle_digests, bundle_files
from zerovl.files import atomic_write
from zerovl.registry import cache
from zerovl.shared_folder import make_folder
from zerovl.version import __version__

_FOLDER = "models"
_FILES = (bundle_files.CONFIG, bundle_files.WEIGHTS, bundle_digests.FILE, *bundle_files.TOKENIZER)
_SETTLED_SECONDS = 2.0  # after which a change of a file has another time than the one before

Stamp = dict[str, Any]


def stamp(folder: Path) -> Stamp:
    """Return what tells whether the files of a model are those that were read; to be taken before they are."""
    versions = {"zerovl": __version__, "tokenizers": version("tokenizers")}  # which digests depend on, too
    return {"files": {name: _status(folder / name) for name in _FILES}, **versions}


def digest(folder: Path, now: Stamp) -> str | None:
    """Return the digest of a model whose files are as they were when it was kept, else None."""
    try:
        kept = json.loads(_path(folder).read_bytes())
        return str(kept["digest"]) if kept["stamp"] == now else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(folder: Path, before: Stamp, found: str) -> None:
    """Keep the digest of a model that was read after `before`; a cache that cannot be written stays as it is."""
    changed = max((status[2] for status in before["files"].values() if status), default=0)
    if time.time_ns() - changed < _SETTLED_SECONDS * 1e9:
        return
    path = _path(folder)
    with suppress(OSError):
        make_folder(path.parent, cache.cache_folder().absolute())
        with atomic_write(path, "w") as file:
            json.dump({"stamp": before, "digest": found}, file)


def check(folder: Path) -> None:
    """Raise `ZeroVLError` naming each file that was edited since the model was written, as `bundle_digests.check`.

    A model whose digest is known had its files compared when that was kept.
    """
    if digest(folder, stamp(folder)) is None:
        bundle_digests.check(folder)


def _status(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _path(folder: Path) -> Path:
    name = sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    return cache.cache_folder().absolute() / _FOLDER / f"{name}.json"
