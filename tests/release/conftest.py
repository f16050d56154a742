"""What tests of releases share: a project with an evaluated model."""

import shutil
from pathlib import Path

import pytest

from tests.support.judged_releases import evaluate
from tests.support.real_world import make_project
from zerovl.workspace import Workspace


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_own(monkeypatch, folder)
        project = make_project(folder / "project")
        evaluate(project, seed=0)
    return project


@pytest.fixture
def workspace(evaluated: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the project with an evaluated model."""
    set_own(monkeypatch, tmp_path)
    shutil.copytree(evaluated.root, tmp_path / "project")
    return Workspace(tmp_path / "project")


def set_own(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("ZEROVL_CACHE", str(folder / "cache"))
    monkeypatch.setenv("ZEROVL_RUN", "test-run")
