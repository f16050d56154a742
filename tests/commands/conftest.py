"""A model and pictures that are made up, for the commands that embed; a project for `zerovl doctor`."""

from pathlib import Path

import pytest

import zerovl
from tests.support.fake_world import FakeEncoder, make_picture_folder
from zerovl import params_file
from zerovl.commands import search
from zerovl.params import Params
from zerovl.registry import fetch


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """The model of every reference."""
    made = FakeEncoder()
    monkeypatch.setattr(zerovl, "load", lambda reference: made)
    monkeypatch.setattr(search, "load_query_encoder", lambda reference: made)
    monkeypatch.setattr(fetch, "check_reference", lambda reference: None)
    return made


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    return make_picture_folder(tmp_path / "pictures")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with valid parameters, and nothing set in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("ZEROVL_STORE", raising=False)
    monkeypatch.setenv("ZEROVL_LEASE", str(tmp_path / "leases"))
    params_file.write(Params(), tmp_path / "params.yaml")
    return tmp_path
