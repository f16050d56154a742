"""The registry as flows open it: a folder's name is meant from a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from flows.runtime.paths import Paths
from zerovl import params_file
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store, store_uri


def open_registry(folder: Path, store: str) -> Registry:
    """Open the registry of a store's URI or folder; a folder's name is meant from `folder`."""
    return Registry(open_store(store_uri(store, folder)))


def user_registry(paths: Paths) -> Registry:
    """Open the registry of `ZEROVL_STORE`, else of the user's params.yaml: what `zerovl registry` uses there."""
    store = os.environ.get("ZEROVL_STORE") or params_file.load(paths.root / "params.yaml").register_.store
    return open_registry(paths.root, store)
