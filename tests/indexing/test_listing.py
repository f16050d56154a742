"""Which pictures are embedded: found by their names as `prepare` finds them, debris left out."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

from tests.support.fake_world import png
from tests.support.raw_sources import write_tar
from zerovl.indexing.listing import listing_of


def test_a_csv_names_pictures_in_other_normal_forms_and_as_windows_does(tmp_path: Path) -> None:
    name = normalize("NFD", "more/é.png")
    for each in (name, "more/1.png"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_bytes(png((1, 2, 3)))
    (tmp_path / "pairs.csv").write_text("image\nmore/é.png\nmore\\1.png\nmore/1.png\n../x.png\n", encoding="utf-8")
    listed = list(listing_of(tmp_path, tmp_path / "pairs.csv"))
    assert [(one.key, one.path, one.problem) for one in listed] == [
        ("more/é.png", name, ""),
        ("more\\1.png", "more/1.png", ""),
        ("more/1.png", "more/1.png", ""),
        ("../x.png", "../x.png", "file name '../x.png' leaves its folder"),
    ]
    assert all(Path(one.picture.path).is_file() for one in listed[:3])


def test_debris_in_folders_and_tars_is_left_out(tmp_path: Path) -> None:
    for name in ("a/0.png", "__MACOSX/0.png", "a/._0.png", "a/.trash/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png((1, 2, 3)))
    names = ("./0.png", "__MACOSX/0.png", "__MACOSX/._0.png", "b/.ipynb_checkpoints/0.png", "b/1.PNG", "b/1.txt")
    for tar in ("0.tar", "1.TAR"):
        write_tar(tmp_path / tar, [(name, png((1, 2, 3))) for name in names])
    keys = [one.key for one in listing_of(tmp_path, None)]
    assert keys == ["0.tar:./0.png", "0.tar:b/1.PNG", "1.TAR:./0.png", "1.TAR:b/1.PNG", "a/0.png"]
