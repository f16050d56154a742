"""A finished pipeline before its stage `register`, the registry that the stage registers in, and one worker."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.support.finished_pipeline import write_pipeline
from tests.support.register_stage import Write
from zerovl.registry.registry import Registry
from zerovl.registry.stores.folder import FolderStore
from zerovl.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "project")


@pytest.fixture
def write(workspace: Workspace) -> Write:
    write = partial(write_pipeline, workspace)
    write()
    return write


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    return Registry(FolderStore(workspace.root / "registry"))


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_WORKERS", "1")
