"""`zerovl index --approximate` and the searches after it, with a fake model; and what is said without faiss."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.fake_world import FakeEncoder, png
from zerovl import cli
from zerovl.indexing import approximate
from zerovl.indexing.approximate import path_of
from zerovl.indexing.index import Index

needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason=f"faiss is not installed: {approximate.INSTALL}")


def test_without_faiss(
    encoder: FakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(approximate, "find_spec", lambda name: None)
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    pictures.mkdir()
    (pictures / "red.png").write_bytes(png((250, 0, 0)))
    making = ["index", "model", "--images", str(pictures), "--out", str(index)]
    assert cli.main([*making, "--approximate"]) == 2
    assert f"run `{approximate.INSTALL}`" in capsys.readouterr().err
    assert not index.exists()  # nothing was embedded
    assert cli.main(making) == 0
    path_of(index, Index(index).description).touch()
    capsys.readouterr()
    searching = ["search", "model", "red", "--index", str(index)]
    assert cli.main(searching) == 0
    printed = capsys.readouterr()
    assert f"as faiss is not installed: all pictures are looked at; run `{approximate.INSTALL}`" in printed.err
    assert cli.main([*searching, "--exact"]) == 0
    exact = capsys.readouterr()
    assert exact.out == printed.out
    assert "faiss" not in exact.err


@needs_faiss
def test_from_the_command_line(encoder: FakeEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    pictures.mkdir()
    for number in range(5):
        (pictures / f"{number}.png").write_bytes(png((50 * number, 0, 0)))
    making = ["index", "model", "--images", str(pictures), "--out", str(index)]
    assert cli.main([*making, "--approximate"]) == 0
    path = path_of(index, Index(index).description)
    assert f"{path}: made, for approximate search\n" in capsys.readouterr().out
    assert cli.main([*making, "--approximate"]) == 0  # nothing has changed, though the files have other numbers
    assert f"{path}: as before, for approximate search\n" in capsys.readouterr().out
    searching = ["search", "model", "colour 100 0 0", "--index", str(index)]
    assert cli.main(searching) == 0
    printed = capsys.readouterr()
    assert printed.err.count("approximate, in 1 of 1 lists") == 1
    assert "--exact looks at all pictures" in printed.err
    assert cli.main([*searching, "--exact"]) == 0
    exact = capsys.readouterr()
    assert exact.out == printed.out
    assert "approximate" not in exact.err
    (pictures / "2.png").unlink()  # the nearest
    assert cli.main([*searching, "--top", "4"]) == 0
    printed = capsys.readouterr()
    assert "skipped 1 that are gone since: 2.png" in printed.err
    assert printed.out.splitlines() == [
        f"{place:4}{line[4:]}" for place, line in enumerate(exact.out.splitlines()[1:], 1)
    ]
