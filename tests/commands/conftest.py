"""A model and pictures that are made up, for the commands that embed; a project for `zerovl doctor`."""

from pathlib import Path

import pytest

import zerovl
from tests.support.fake_world import FakeEncoder, make_picture_folder
from zerovl import params_file
from zerovl.commands import search
from zerovl.params import Params
from zerovl.registry import fetch

_PAIRS = """\
image,image_id,caption,caption_id
more/green.PNG,7,"colour 0 250 0, says a ""quote""\",71
red.png,0,colour 250 0 0,1
more/green.PNG,7,colour 0 240 0,72
"blue.png",3,"colour 0
0 250",31
"""


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
def pairs(tmp_path: Path) -> Path:
    """Four captions of three pictures of `picture_folder`, as CSV allows to write them."""
    path = tmp_path / "pairs.csv"
    path.write_text(_PAIRS, encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with valid parameters, and nothing set in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("ZEROVL_STORE", raising=False)
    monkeypatch.setenv("ZEROVL_LEASE", str(tmp_path / "leases"))
    params_file.write(Params(), tmp_path / "params.yaml")
    return tmp_path
