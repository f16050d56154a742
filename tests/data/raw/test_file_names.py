"""Files whose names are in another normal form or letter case than the table's: found, counted, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from tests.support import raw_sources
from zerovl.data.raw.file_names import FileNames, Found

COMPOSED, DECOMPOSED = (normalize(form, "Café/Ü.jpg") for form in ("NFC", "NFD"))


def put(folder: Path, name: str, seed: int = 0) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(raw_sources.jpeg(seed))


def of_zerovl(folder: Path, name: str) -> None:
    put(folder / "train", name)
    raw_sources.write_csv(folder / "train_anno.csv", [(COMPOSED, 0, "a caption", 0)])


def of_karpathy(folder: Path, name: str) -> None:
    put(folder / "images", name)
    image = {"filename": COMPOSED, "imgid": 0, "split": "train", "sentences": [{"raw": "a caption", "sentid": 0}]}
    (folder / "dataset.json").write_text(json.dumps({"images": [image]}))


def of_tables(folder: Path, name: str) -> None:
    put(folder, name)
    (folder / "train.csv").write_text(
        f"image,caption\n{COMPOSED},a caption\n{COMPOSED},another one\n", encoding="utf-8"
    )


@pytest.mark.parametrize("write", [of_zerovl, of_karpathy, of_tables])
def test_a_picture_is_found_by_its_normalised_name_and_counted(
    tmp_path: Path, write: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write(tmp_path / "raw/a", DECOMPOSED)
    manifest = raw_sources.run_prepare(tmp_path)
    assert manifest.pairs("a", "train") == 1
    assert "a/train: 1 picture found by a file name in another Unicode normal form" in caplog.text
    caplog.clear()
    write(tmp_path / "raw/a", COMPOSED)
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 1
    assert "normal form" not in caplog.text


@pytest.mark.parametrize("write", [of_zerovl, of_karpathy, of_tables])
@pytest.mark.parametrize("name", [COMPOSED.upper(), DECOMPOSED.upper()])
def test_a_picture_is_found_by_its_name_in_another_letter_case_and_counted(
    tmp_path: Path, write: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write(tmp_path / "raw/a", name)
    manifest = raw_sources.run_prepare(tmp_path)
    assert manifest.pairs("a", "train") == 1
    assert "a/train: 1 picture found by a file name in another letter case" in caplog.text


def test_a_name_as_it_is_written_comes_first_then_another_form_then_another_case(tmp_path: Path) -> None:
    def found(name: str) -> str:
        return FileNames(tmp_path).find(name).path.removeprefix(f"{tmp_path}/")

    put(tmp_path, "Img/É.JPG")
    assert [found(name) for name in ("img/é.jpg", "IMG/É.jpg", "img/e.jpg")] == ["Img/É.JPG", "Img/É.JPG", "img/e.jpg"]
    put(tmp_path, f"Img/{DECOMPOSED[3:5]}.jpg")
    assert found("Img/é.jpg") == f"Img/{DECOMPOSED[3:5]}.jpg"
    put(tmp_path, "Img/é.jpg")
    assert found("Img/é.jpg") == "Img/é.jpg"
    for name in ("b.jpg", "B.JPG"):
        put(tmp_path, name)
    assert found("b.jpg") == "b.jpg"
    assert found("B.JPG") == "B.JPG"
    assert FileNames(tmp_path).find("B.jpg") == Found(
        f"{tmp_path}/B.jpg", problem="2 files have this name in other letter cases"
    )


def test_names_of_which_it_is_not_known_which_is_meant(tmp_path: Path) -> None:
    # a letter with two marks, in their two orders and as one character with a mark: one NFC, three names
    names = ("o\u0323\u0302.jpg", "o\u0302\u0323.jpg", "\u1ecd\u0302.jpg")
    for seed, name in enumerate(names):
        put(tmp_path / "raw/a", name, seed)
    wanted = normalize("NFC", names[0])
    files = FileNames(tmp_path / "raw/a")
    assert files.find(wanted).problem == "3 files have this name in other Unicode normal forms"
    assert [files.find(name) for name in names] == [Found(str(tmp_path / "raw/a" / name)) for name in names]
    (tmp_path / "raw/a/train.csv").write_text(f"image,caption\n{wanted},a caption\n", encoding="utf-8")
    manifest = raw_sources.run_prepare(tmp_path)
    assert list(raw_sources.errors(manifest, "a").values()) == ["3 files have this name in other Unicode normal forms"]


@pytest.mark.parametrize("name", ["é.jpg", "é/x.jpg", "x/é.jpg", "\udcff.jpg", "é" * 300])
def test_a_missing_file_keeps_its_name(tmp_path: Path, name: str) -> None:
    assert FileNames(tmp_path).find(name) == Found(f"{tmp_path}/{name}")


def test_backslashes_and_blanks_where_the_name_as_it_is_is_not_there(tmp_path: Path) -> None:
    for seed, name in enumerate(("p/0.jpg", "p/1.jpg", "p/2.jpg", "p\\2.jpg", "p/Café.jpg")):
        put(tmp_path / "raw/a", name, seed)
    put(tmp_path / "raw", "outside.jpg")
    names = ["p\\0.jpg", '" .\\p\\1.jpg "', "p\\2.jpg", normalize("NFD", "p\\Café.jpg"), "..\\outside.jpg", "p\\9.jpg"]
    table = "".join(f"{name},caption {row}\n" for row, name in enumerate(names))
    (tmp_path / "raw/a/train.csv").write_text(f"image,caption\n{table}", encoding="utf-8")
    manifest = raw_sources.run_prepare(tmp_path)
    usable = [row for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert [row["captions"] for row in usable] == [[f"caption {row}"] for row in range(4)]
    assert sorted(raw_sources.errors(manifest, "a").values()) == [
        "file name '..\\\\outside.jpg' leaves its folder",
        "missing file",
    ]
    files = FileNames(tmp_path / "raw/a")
    assert files.find("p\\2.jpg") == Found(str(tmp_path / "raw/a/p\\2.jpg"))
    assert files.find(f" {tmp_path}/raw/outside.jpg") == Found(f"{tmp_path}/raw/a/ {tmp_path}/raw/outside.jpg")
