"""From a reference to a model's folder on this machine: the first half of `zerovl.load`.

References:

    path/to/model                        a bundle's folder, as it is
    NAME@ALIAS, NAME@3                   in the default store
    s3://bucket/prefix/NAME@ALIAS        in a bucket
    /path/to/store/NAME@ALIAS            in another folder

A release is fetched into the cache (`zerovl.registry.cache`), or found there. While its store is away one that is there
is used as it was last seen (`zerovl.registry.last_seen`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl import bundle_digests, foreign_folders
from zerovl.errors import ZeroVLError
from zerovl.registry import cache, last_seen, release_files
from zerovl.registry.stores import open_store, store_uri
from zerovl.workspace import Workspace


@contextmanager
def opened(
    reference: str,
    meanwhile: Callable[[], object] = last_seen.nothing,
    check: Callable[[Path], None] = bundle_digests.check,
) -> Iterator[Path]:
    """Give the folder of a bundle; a release is fetched first, and stays in the cache until the block ends.

    The digests of a plain folder's files are compared with those that were written with the model; those of a release
    were on arrival. `meanwhile` is called while a store is waited for that a release in the cache may do without;
    `check` is what compares those of a plain folder.

    Raises:
        ZeroVLError: there is no such model, or a file of it is damaged.
    """
    folder = _folder(reference)
    if folder.is_dir():
        _check_bundle(reference, folder)
        check(folder)
        yield folder
        return
    if "@" not in reference:
        raise _no_such_model(reference)
    uri, name = split_store(reference)
    store = open_store(uri)
    found = last_seen.find(store, name, meanwhile)
    with cache.held(store, found.version) as release:
        last_seen.keep(store, found)
        yield release


def check_reference(reference: str) -> None:
    """Raise `ZeroVLError` where `opened` would find nothing; reads no weights, and imports no large library.

    Where params.yaml names the store, the whole file is checked.
    """
    folder = _folder(reference)
    if folder.is_dir():
        _check_bundle(reference, folder)
        return
    if "@" not in reference:
        raise _no_such_model(reference)
    uri, name = split_store(reference)
    last_seen.find(open_store(uri), name)


def resolve(reference: str) -> Path:
    """Return the folder that `opened` gives, for a look at it; nothing keeps a release from being removed later."""
    with opened(reference) as folder:
        return folder


def split_store(reference: str) -> tuple[str, str]:
    """Return store and NAME@LABEL of `STORE/NAME@LABEL`; without a store the default one."""
    place, _, label = reference.rpartition("@")
    store, separator, name = place.rpartition("/")
    if separator and not store:
        store = "/"
    return (store if separator else default_store()), f"{name}@{label}"


def _folder(reference: str) -> Path:
    """The folder that a reference may be; an empty one is not the folder that the command runs in."""
    if not reference.strip():
        raise _no_such_model(reference)
    return Path(reference).expanduser()


def _check_bundle(reference: str, folder: Path) -> None:
    foreign_folders.refuse(folder, reference)
    if not release_files.is_bundle(folder):
        files = f"{release_files.CONFIG} and {release_files.WEIGHTS}"
        raise ZeroVLError(f"{reference}: the folder has no {files}, so it is not a model")


def _no_such_model(reference: str) -> ZeroVLError:
    return ZeroVLError(f"{reference!r}: no such folder; name a bundle's folder, NAME@ALIAS or s3://bucket/NAME@ALIAS")


def default_store() -> str:
    """Return `ZEROVL_STORE`, else `register.store` of ./params.yaml, else "registry".

    A relative folder is meant from the checkout, also in a temporary copy of it.
    """
    if store := os.environ.get("ZEROVL_STORE"):
        return store
    path = Path("params.yaml")
    if path.is_file():
        from zerovl import params_file

        return store_uri(params_file.load(path).register_.store, Workspace().shared)
    return store_uri("registry", Workspace().shared)
