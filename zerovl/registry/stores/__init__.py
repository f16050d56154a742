"""Stores of releases: a folder, or a bucket of S3.

Another kind of store is a module beside these with the methods of `base.Store`, and a line in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.registry.stores.base import Store
from zerovl.registry.stores.folder import FolderStore
from zerovl.registry.stores.s3 import S3Store
from zerovl.s3 import parse


def open_store(uri: str) -> Store:
    """Open a folder or `s3://bucket/prefix`; endpoint and keys of S3 come from the environment.

    Raises `ZeroVLError` for an address that is neither.
    """
    if not uri:
        raise ZeroVLError("the store is empty; name a folder or s3://bucket/prefix")
    scheme, separator, _ = uri.partition("://")
    kind = scheme if separator else "folder"
    if kind not in _KINDS or (separator and kind == "folder"):
        raise ZeroVLError(f"store {uri!r} is not a folder and not of the form s3://bucket/prefix")
    return _KINDS[kind](uri)


def store_uri(store: str, folder: Path) -> str:
    """Return the URI of a store whose name, where it is a relative folder, is meant from `folder`."""
    return store if "://" in store else str(folder / Path(store).expanduser())


def _open_folder(uri: str) -> Store:
    return FolderStore(Path(uri).expanduser())


def _open_s3(uri: str) -> Store:
    place = parse(uri)
    return S3Store(place.bucket, place.path.strip("/"))


_KINDS: dict[str, Callable[[str], Store]] = {"folder": _open_folder, "s3": _open_s3}  # by scheme
