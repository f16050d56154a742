"""Twelve pictures of one colour in an index, and the application that serves them."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.fake_world import FakeEncoder, png
from zerovl.indexing.index import Index
from zerovl.indexing.listing import listing_of
from zerovl.indexing.update import update
from zerovl.serving.about import About
from zerovl.serving.answers import Answers
from zerovl.serving.app import make_app
from zerovl.serving.guard import App

CARD = """\
---
tags:
- clip
---

# A model

It **finds** `colours` <script>document.title = 'taken'</script>.

- one

#### Details

#tag
"""


def serve_colours(folder: Path) -> App:
    """Build the application over pictures in `folder / "pictures"`, which are drawn there."""
    pictures, encoder = folder / "pictures", FakeEncoder()
    (pictures / "sub").mkdir(parents=True)
    for number in range(12):
        (pictures / "sub" / f"<b>{number:02d}.png").write_bytes(png((20 * number, 100, 100), side=500))
    update(folder / "index", listing_of(pictures, None), encoder, "demo@1")  # type: ignore[arg-type]
    (folder / "report.html").write_text("<!doctype html><title>The report</title>")
    about = About("demo@1", CARD, folder / "report.html", None)
    return make_app(Answers(Index(folder / "index"), encoder), about)  # type: ignore[arg-type]


def client_of(app: App) -> TestClient:
    """Ask an application without a port."""
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """For tests that leave the pictures as they are."""
    return serve_colours(tmp_path_factory.mktemp("served"))


@pytest.fixture
def client(app: App) -> TestClient:
    return client_of(app)


@pytest.fixture
def changing(tmp_path: Path) -> tuple[TestClient, Path]:
    """An application of its own for a test that changes pictures, and their folder."""
    return client_of(serve_colours(tmp_path)), tmp_path / "pictures"
