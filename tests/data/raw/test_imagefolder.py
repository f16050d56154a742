"""Hugging Face's imagefolder: a table `metadata` in each split's folder, or one for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from tests.support.table_sources import good, write, write_pictures
from zerovl.errors import ZeroVLError


def test_a_table_in_each_splits_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "raw/a"
    for split, ending in (("train", ".csv"), ("validation", ".jsonl"), ("test", ".parquet")):
        write_pictures(folder / split, "0.jpg", "deep/1.jpg")
        rows = [
            {"file_name": "0.jpg", "text": f"{split} zero"},
            {"file_name": "0.jpg", "text": f"{split} nothing"},
            {"file_name": "deep/1.jpg", "text": f"{split} one"},
        ]
        write(folder / split / f"metadata{ending}", rows)
    manifest = raw_sources.run_prepare(tmp_path)
    assert good(manifest) == [
        ("train/0.jpg (train/metadata.csv:2)", ["train zero", "train nothing"]),
        ("train/deep/1.jpg (train/metadata.csv:4)", ["train one"]),
    ]
    assert [captions for _, captions in good(manifest, "valid")] == [["test zero", "test nothing"], ["test one"]]
    assert "a/valid: split 'validation' left out" in caplog.text
    both = raw_sources.rows(manifest, "a") + raw_sources.rows(manifest, "a", "valid")
    assert len({row["image_id"] for row in both}) == 4
    chosen = run_sources(tmp_path, {"name": "a", "path": "raw/a", "evaluation_split": "val"})
    assert [captions[0] for _, captions in good(chosen, "valid")] == ["validation zero", "validation one"]


def test_one_table_for_all_splits(tmp_path: Path) -> None:
    folder = tmp_path / "raw/a"
    write_pictures(folder, "train/0.jpg", "valid/1.jpg", "other/2.jpg")
    rows = [{"file_name": name, "caption": name} for name in ("train/0.jpg", "valid/1.jpg", "other/2.jpg")]
    write(folder / "metadata.csv", rows)
    with open(folder / "metadata.csv", "a") as file:
        file.write("train/3.jpg\n")
    manifest = raw_sources.run_prepare(tmp_path)
    assert [captions for _, captions in good(manifest)] == [["train/0.jpg"], ["other/2.jpg"]]
    assert [captions for _, captions in good(manifest, "valid")] == [["valid/1.jpg"]]
    assert raw_sources.errors(manifest, "a") == {"metadata.csv:5": "row has 1 cells, the header has 2"}
    assert raw_sources.errors(manifest, "a", "valid") == {}


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    rows = [{"file_name": "0.jpg", "text": "zero"}]
    for ending in (".csv", ".jsonl"):
        write(tmp_path / f"raw/a/metadata{ending}", rows)
    with pytest.raises(ZeroVLError, match=r"raw/a has metadata\.csv and metadata\.jsonl; keep one"):
        raw_sources.run_prepare(tmp_path)
    write_pictures(tmp_path / "raw/b/train", "0.jpg")
    for place in ("metadata.csv", "train/metadata.csv"):
        write(tmp_path / "raw/b" / place, rows)
    with pytest.raises(ZeroVLError, match=r"raw/b has metadata\.csv and train/metadata\.csv, and it is not known"):
        run_sources(tmp_path, {"name": "b", "path": "raw/b"})
    write(tmp_path / "raw/a/train.csv", rows)
    with pytest.raises(ZeroVLError, match=r"fits the layouts table and imagefolder; name it in data\.sources"):
        raw_sources.run_prepare(tmp_path)


def test_folders_of_splits_between_backslashes(tmp_path: Path) -> None:
    folder = tmp_path / "raw/a"
    write_pictures(folder, "train/0.jpg", "valid/1.jpg")
    rows = [{"file_name": "train\\0.jpg", "text": "zero"}, {"file_name": ".\\valid\\1.jpg", "text": "one"}]
    write(folder / "metadata.csv", rows)
    manifest = raw_sources.run_prepare(tmp_path)
    assert [manifest.pairs("a", split) for split in ("train", "valid")] == [1, 1]
