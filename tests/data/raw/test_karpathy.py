"""Karpathy's split files: places, splits, and entries that are broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from zerovl import log
from zerovl.errors import ZeroVLError


def karpathy_source(root: Path, images: list[Any], name: str = "dataset_k.json") -> Path:
    folder = root / "raw/k"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"images": images}))
    return folder


def karpathy_image(number: int, split: str, **changes: Any) -> dict[str, Any]:
    sentences = [{"raw": f"sentence {number}", "sentid": number}]
    return {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences} | changes


def test_karpathy_splits_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = karpathy_source(
        tmp_path,
        [
            karpathy_image(0, "train", filepath="train2014", cocoid=77),
            karpathy_image(1, "restval"),
            karpathy_image(2, "val"),
            karpathy_image(3, "test"),
            karpathy_image(4, "test", filepath="val2014"),
        ],
    )
    for place in ("train2014/0.jpg", "images/1.jpg", "images/2.jpg", "3.jpg", "images/val2014/4.jpg"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(raw_sources.jpeg(5))
    log.setup()
    manifest = raw_sources.run_prepare(tmp_path)
    ids = {split: [row["image_id"] for row in raw_sources.rows(manifest, "k", split)] for split in ("train", "valid")}
    assert ids == {"train": [77, 1], "valid": [3, 4]}
    assert raw_sources.errors(manifest, "k", "train") == raw_sources.errors(manifest, "k", "valid") == {}
    assert "k/valid: 1 image of split 'val' left out" in capsys.readouterr().err
    manifest = run_sources(tmp_path, {"name": "k", "path": "raw/k", "evaluation_split": "val", "splits": ["valid"]})
    assert list(manifest.splits) == [("k", "valid")]
    assert [row["image_id"] for row in raw_sources.rows(manifest, "k", "valid")] == [2]


def test_split_names_in_any_case_and_val_where_there_is_no_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    splits = ("Train", " restVal", "VAL", "extra", None)
    folder = karpathy_source(tmp_path, [karpathy_image(number, split) for number, split in enumerate(splits)])  # type: ignore[arg-type]  # None
    for number in range(len(splits)):
        (folder / f"{number}.jpg").write_bytes(raw_sources.jpeg(number))
    manifest = raw_sources.run_prepare(tmp_path)
    ids = {split: [row["image_id"] for row in raw_sources.rows(manifest, "k", split)] for split in ("train", "valid")}
    assert ids == {"train": [0, 1], "valid": [2]}
    for name in ("extra", "none"):
        assert f"k/valid: 1 image of split '{name}' left out" in caplog.text


def test_files_of_hugging_face_beside_tables_are_not_karpathys(tmp_path: Path) -> None:
    (tmp_path / "raw/k").mkdir(parents=True)
    (tmp_path / "raw/k/0.jpg").write_bytes(raw_sources.jpeg(0))
    (tmp_path / "raw/k/train.csv").write_text("image,text\n0.jpg,a dog\n")
    for name in ("dataset_info.json", "dataset_infos.json", "dataset_dict.json"):
        (tmp_path / "raw/k" / name).write_text("{}")
    assert raw_sources.run_prepare(tmp_path).pairs("k", "train") == 1


def test_broken_karpathy_entries(tmp_path: Path) -> None:
    folder = karpathy_source(
        tmp_path,
        [
            karpathy_image(0, "train"),
            karpathy_image(1, "train", imgid=0),
            karpathy_image(2, "train", filename="../2.jpg"),
            karpathy_image(3, "train", sentences=[]),
            karpathy_image(4, "train", imgid="four"),
            karpathy_image(5, "train", sentences=[{"raw": "", "sentid": 5}, {"raw": "fine", "sentid": 50}]),
            karpathy_image(6, "train", sentences=[{"raw": "dup", "sentid": 0}, {"raw": "\ud800", "sentid": 60}]),
            "no image",
        ],
    )
    for n in range(7):
        (folder / f"{n}.jpg").write_bytes(raw_sources.jpeg(n))
    manifest = raw_sources.run_prepare(tmp_path)
    found = [row["captions"] for row in raw_sources.rows(manifest, "k") if row["error"] is None]
    assert found == [["sentence 0"], ["fine"]]
    assert [row["error"] for row in raw_sources.rows(manifest, "k") if row["error"]] == [
        "image id 0 was used before",
        "file name '../2.jpg' leaves its folder",
        "no caption",
        "imgid 'four' is not a whole number",
        "empty caption",
        "caption_id 0 was used before",
        "caption is not valid Unicode (a lone surrogate)",
    ]


def test_names_of_a_karpathy_file_that_no_file_can_have(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(raw_sources.jpeg(0))
    names = [("sub", str(outside)), ("", "\ud800.jpg"), ("", f"{'a' * 300}.jpg")]
    folder = karpathy_source(
        tmp_path,
        [karpathy_image(n, "train", filepath=path, filename=name) for n, (path, name) in enumerate(names)]
        + [karpathy_image(9, "train")],
    )
    (folder / "9.jpg").write_bytes(raw_sources.jpeg(9))
    rows = raw_sources.rows(raw_sources.run_prepare(tmp_path), "k")
    assert [row["error"] for row in rows] == [
        f"absolute file name {str(outside)!r}",
        "file name is not valid Unicode",
        "missing file",
        None,
    ]
    assert rows[1]["origin"].startswith("\\ud800.jpg (")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not valid JSON"), ("[]", "no list 'images'"), (f'{{"images": {"1" * 5000}}}', "not valid JSON")],
)
def test_karpathy_file_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    karpathy_source(tmp_path, []).joinpath("dataset_k.json").write_text(text)
    with pytest.raises(ZeroVLError, match=reason):
        raw_sources.run_prepare(tmp_path)
