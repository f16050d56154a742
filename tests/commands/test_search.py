"""`zerovl search` with a fake model, and with every broken input."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.support.fake_world import FakeEncoder, png
from zerovl import log
from zerovl.commands import search
from zerovl.errors import ZeroVLError


def test_search_ranks_skips_broken_and_draws(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup()
    out = tmp_path / "found.png"
    search.run("model", "colour 0 245 0", picture_folder, 2, out)
    printed = capsys.readouterr()
    assert "warning: skipped 1 unreadable:" in printed.err
    assert "broken.jpg (not a picture)" in printed.err
    lines = printed.out.splitlines()
    place, value, path = lines[0].split(maxsplit=2)
    assert (place, path) == ("1", str(picture_folder / "more" / "green.PNG"))
    assert 0.9 < float(value) <= 1
    assert len(lines) == 3
    assert lines[2] == f"drawn: {out}"
    assert Image.open(out).width == 1200


def test_search_of_more_pictures_than_a_batch(
    encoder: FakeEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BATCH", 3)
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(png((number * 30, 0, 0)))
    search.run("model", "colour 150 0 0", tmp_path, 100, None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == encoder.encoded_pictures == 8
    assert lines[0].endswith("5.png")


@pytest.mark.parametrize(
    ("query", "top", "name", "message"),
    [
        ("red", 0, "pictures", "--top 0"),
        (" ", 1, "pictures", "query is empty"),
        ("red", 1, "nowhere", "nowhere: no such folder"),
        ("red", 1, "empty", "no pictures in it"),
        ("red", 1, "bad", "none of the 1 pictures can be read"),
    ],
)
def test_search_names_what_is_wrong(
    encoder: FakeEncoder, picture_folder: Path, query: str, top: int, name: str, message: str
) -> None:
    parent = picture_folder.parent
    (parent / "empty").mkdir()
    (parent / "bad").mkdir()
    (parent / "bad" / "a.gif").write_bytes(b"")
    with pytest.raises(ZeroVLError, match=message):
        search.run("model", query, parent / name, top, None)
