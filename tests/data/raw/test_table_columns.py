"""Which column of a table is what: by name, by usual names, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from tests.support.table_sources import good, write, write_pictures
from zerovl.errors import ZeroVLError


def test_columns_of_other_names_and_splits_in_a_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "elsewhere/of pairs"
    write_pictures(tmp_path / "photos", "0.jpg", "1.jpg", "2.jpg")
    rows = [
        {"file": "0.jpg", "says": "zero", "number": 7, "part": "train"},
        {"file": "1.jpg", "says": "one", "number": "x", "part": "Dev"},
        {"file": str(tmp_path / "photos/0.jpg"), "says": "zero again", "number": 7, "part": "train"},
        {"file": "2.jpg", "says": "stolen", "number": 7, "part": "train"},
        {"file": "1.jpg", "says": "two", "number": "", "part": "train"},
        {"file": "2.jpg", "says": "not this", "number": 9, "part": "extra"},
        {"file": "2.jpg", "says": "three", "number": " ", "part": "train"},
    ]
    write(folder / "mine.jsonl", rows)
    settings = {
        "name": "a",
        "path": str(folder),
        "layout": "table",
        "table": "m*.jsonl",
        "columns": {"image": "file", "caption": "says", "image_id": "number", "split": "part"},
        "pictures": str(tmp_path / "photos"),
    }
    manifest = run_sources(tmp_path, settings)
    assert good(manifest) == [("0.jpg (mine.jsonl:1)", ["zero", "zero again"])]
    assert raw_sources.errors(manifest, "a") == {
        "mine.jsonl:4": "number 7 already belongs to 0.jpg, here it has 2.jpg",
        **{f"mine.jsonl:{line}": "no number" for line in (5, 7)},
    }
    assert good(manifest, "valid") == [("1.jpg (mine.jsonl:2)", ["one"])]
    assert "a/valid: 1 row of split 'extra' left out" in caplog.text
    assert "mine.jsonl: image = file, caption = says, image_id = number, split = part" in caplog.text
    with pytest.raises(ZeroVLError, match=r"pictures: ../gone: no such folder \(.*\); give one that is there"):
        run_sources(tmp_path, settings | {"pictures": "../gone"})


@pytest.mark.parametrize(
    ("header", "row", "taken"),
    [
        ("Image,Caption", "0.jpg,a dog", "image = Image, caption = Caption"),
        ("Caption,caption,IMAGE", "not this,a dog,0.jpg", "image = IMAGE, caption = caption"),
        ("image_name| comment_number| comment", "0.jpg| 0| a dog", "image = image_name, caption = comment"),
        ("image_name|comment|size", '0.jpg| "a dog"|1', "image = image_name, caption = comment"),
    ],
)
def test_columns_in_any_case_and_between_bars(
    header: str, row: str, taken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_pictures(tmp_path / "raw/a", "0.jpg")
    (tmp_path / "raw/a/train.csv").write_text(f"{header}\n{row}\n")
    assert good(raw_sources.run_prepare(tmp_path)) == [("0.jpg (train.csv:2)", ["a dog"])]
    assert f"a/train: train.csv: {taken}" in caplog.text


@pytest.mark.parametrize("row", ["0.jpg,a dog", "a dog\thttps://a.b/c"])
def test_a_table_without_a_header_is_said_to_have_none(row: str, tmp_path: Path) -> None:
    (tmp_path / "raw/a").mkdir(parents=True)
    (tmp_path / "raw/a/train.csv").write_text(f"{row}\n{row}\n")
    with pytest.raises(ZeroVLError, match="if its first line is a row already, put one with names above it"):
        raw_sources.run_prepare(tmp_path)


def test_a_header_with_an_empty_cell_names_no_column(tmp_path: Path) -> None:
    """As pandas writes an index: its numbers would be the captions."""
    write_pictures(tmp_path / "raw/a", "0.jpg")
    (tmp_path / "raw/a/train.csv").write_text(",image,alt\n0,0.jpg,a dog\n")
    with pytest.raises(ZeroVLError, match=r"no column for the caption \(.*\); it has , image, alt; name yours"):
        raw_sources.run_prepare(tmp_path)
    manifest = run_sources(tmp_path, {"name": "a", "path": "raw/a", "columns": {"caption": "alt"}})
    assert good(manifest) == [("0.jpg (train.csv:2)", ["a dog"])]


def test_wrong_columns_list_those_that_there_are(tmp_path: Path) -> None:
    write(tmp_path / "raw/a/train.csv", [{"url": "x", "alt": "y"}])
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    assert str(error.value).endswith(
        "train.csv: no column for the image (image, filepath, file_name, filename, image_path, image_name, "
        "path, jpg); it has url, alt; name yours in data.sources, as in columns: {image: NAME}"
    )
    source = {"name": "a", "path": "raw/a", "columns": {"image": "url", "caption": "txt"}}
    with pytest.raises(ZeroVLError, match=r"no column 'txt'; it has url, alt; name yours"):
        run_sources(tmp_path, source)
    write(tmp_path / "raw/a/train.csv", [{"image": "x", "caption": "y"}])
    text = (tmp_path / "raw/a/train.csv").read_text().replace("image,", "caption,")
    (tmp_path / "raw/a/train.csv").write_text(text)
    with pytest.raises(ZeroVLError, match="column 'caption' stands twice"):
        run_sources(tmp_path, {"name": "a", "path": "raw/a", "columns": {"image": "caption"}})
