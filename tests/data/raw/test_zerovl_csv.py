"""The layout with a CSV a split: broken rows are quarantined, a file that cannot be read is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_sources
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError


def csv_source(root: Path, rows: list[tuple[object, ...]], **settings: Any) -> Manifest:
    for n in range(4):
        place = root / f"raw/a/train/{n}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(raw_sources.jpeg(n))
    raw_sources.write_csv(root / "raw/a/train_anno.csv", rows)
    return raw_sources.run_prepare(root, **settings)


def test_broken_captions_leave_the_picture(tmp_path: Path) -> None:
    manifest = csv_source(
        tmp_path,
        [
            ("0.jpg", 0, "good", 0),
            ("0.jpg", 0, "  ", 1),
            ("0.jpg", 0, "x" * 1_000_000, 2),
            ("0.jpg", 0, " good too ", 3),
            ("1.jpg", 1, "", 4),
        ],
    )
    [row] = [row for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert (row["captions"], row["caption_ids"]) == (["good", "good too"], [0, 3])
    assert raw_sources.errors(manifest, "a") == {
        "train_anno.csv:3": "empty caption",
        "train_anno.csv:4": "caption of 1000000 bytes, more than 10000",
        "train_anno.csv:6": "empty caption",
    }
    long = next(row for row in raw_sources.rows(manifest, "a") if row["origin"] == "train_anno.csv:4")
    assert (long["captions"], long["caption_ids"]) == (["x" * 200], [2])


def test_duplicates_in_a_csv(tmp_path: Path) -> None:
    manifest = csv_source(
        tmp_path,
        [("0.jpg", 0, "first", 0), ("1.jpg", 0, "stolen id", 1), ("0.jpg", 0, "again", 0), ("1.jpg", 1, "fine", 1)],
    )
    good = [(row["image_id"], row["captions"]) for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert good == [(0, ["first"]), (1, ["fine"])]
    assert raw_sources.errors(manifest, "a") == {
        "train_anno.csv:3": "image_id 0 already belongs to '0.jpg', here it has '1.jpg'",
        "train_anno.csv:4": "caption_id 0 was used before",
    }


def test_broken_rows_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(raw_sources.jpeg(9))
    manifest = csv_source(
        tmp_path,
        [
            ("0.jpg", "seven", "no id", 0),
            ("0.jpg", 1, "no caption id", ""),
            ("0.jpg", 2),
            ("../../../secret.jpg", 3, "outside", 3),
            (str(tmp_path / "secret.jpg"), 4, "absolute", 4),
            ("2.jpg", 5, "two\nlines", 5),
        ],
    )
    [row] = [row for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert (row["image_id"], row["captions"]) == (5, ["two\nlines"])
    assert list(raw_sources.errors(manifest, "a").values()) == [
        "image_id 'seven' is not a whole number",
        "caption_id '' is not a whole number",
        "row has 2 cells, the header has 4",
        "file name '../../../secret.jpg' leaves its folder",
        f"absolute file name {str(tmp_path / 'secret.jpg')!r}",
    ]


def test_missing_column(tmp_path: Path) -> None:
    raw_sources.write_csv(tmp_path / "raw/a/train_anno.csv", [("0.jpg", "x", 0)], header=("image", "caption", "id"))
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    assert str(error.value).endswith(
        "train_anno.csv: no column image_id, caption_id; found image, caption, id; "
        "expected image, image_id, caption, caption_id in the first line"
    )


def test_csv_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "raw/a/train_anno.csv"
    path.parent.mkdir(parents=True)
    good = "image,image_id,caption,caption_id\n" + "".join(f"{n}.jpg,{n},fine é,{n}\n" for n in range(5000))
    path.write_bytes(good.encode() + "x.jpg,9999,caf\u00e9,9999\n".encode("latin-1"))
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    byte = len(good.encode()) + len("x.jpg,9999,caf")
    assert f"train_anno.csv: line 5002, byte {byte} (0xe9): not UTF-8; save it as UTF-8" in str(error.value)
    assert "iconv -f WINDOWS-1252 -t UTF-8" in str(error.value)


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    path = tmp_path / "raw/a/train_anno.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 2


def test_files_and_folders_of_splits_in_another_letter_case(tmp_path: Path) -> None:
    for split, name in (("train", "Train"), ("valid", "VALID")):
        raw_sources.write_zerovl(tmp_path / "raw/a", split, 2, first=2 * (split == "valid"))
        (tmp_path / "raw/a" / split).rename(tmp_path / "raw/a" / name)
        (tmp_path / f"raw/a/{split}_anno.csv").rename(tmp_path / f"raw/a/{name}_anno.csv")
    manifest = raw_sources.run_prepare(tmp_path)
    assert {key: (info.pairs, info.broken) for key, info in manifest.splits.items()} == {
        ("a", "train"): (2, 0),
        ("a", "valid"): (2, 0),
    }
