"""A model and pictures that are made up, for the commands that embed."""

from pathlib import Path

import pytest

import zerovl
from tests.support.fake_world import FakeEncoder, make_picture_folder
from zerovl.commands import search
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
