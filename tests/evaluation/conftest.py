"""Fixtures over the made-up world of `fake_world`."""

from pathlib import Path

import pytest

from tests.support.fake_world import World, make_picture_folder, make_world


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    return make_picture_folder(tmp_path / "pictures")
