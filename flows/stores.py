"""The registry as flows open it: a folder's name is meant from a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from flows.runtime.paths import Home
from zerovl import params_file
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store


def open_registry(folder: Path, store: str) -> Registry:
    return Registry(open_store(store if "://" in store else str(folder / Path(store).expanduser())))


def user_registry(home: Home) -> Registry:
    """That of `ZEROVL_STORE`, else of the user's params.yaml: what `zerovl registry` uses there."""
    store = os.environ.get("ZEROVL_STORE") or params_file.load(home.root / "params.yaml").register_.store
    return open_registry(home.root, store)
