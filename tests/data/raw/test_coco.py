"""COCO's own files: images and annotations in one file a split, pictures in a folder of its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError


def write_captions(path: Path, numbers: range, **changes: Any) -> None:
    """A file as COCO has it: captions of a picture lie apart."""
    images = [{"id": number, "file_name": f"{number:012d}.jpg", "height": 30, "width": 40} for number in numbers]
    annotations = [
        {"image_id": number, "id": 10 * number + take, "caption": f"picture {number}, take {take} "}
        for take in (1, 2)
        for number in numbers
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations} | changes))


def write_pictures(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:012d}.jpg").write_bytes(raw_sources.jpeg(number))


def good(manifest: Manifest, split: str) -> dict[int, list[str]]:
    assert not raw_sources.errors(manifest, "coco", split)
    return {row["image_id"]: row["captions"] for row in raw_sources.rows(manifest, "coco", split)}


def expected(*numbers: int) -> dict[int, list[str]]:
    return {number: [f"picture {number}, take {take}" for take in (1, 2)] for number in numbers}


@pytest.mark.parametrize("annotations", ["annotations", ""])
@pytest.mark.parametrize(
    "places", [("train2017", "val2017"), ("images/train2017", "images/val2017"), ("train", "val"), ("images",), ("",)]
)
def test_as_it_is_unpacked(places: tuple[str, ...], annotations: str, tmp_path: Path) -> None:
    folder = tmp_path / "raw/coco"
    for split, place, numbers in (("train", places[0], range(3)), ("val", places[-1], range(3, 5))):
        write_captions(folder / annotations / f"captions_{split}2017.json", numbers)
        write_pictures(folder / place, numbers)
    (folder / annotations / "instances_train2017.json").write_text("{}")  # of objects, not of captions
    manifest = raw_sources.run_prepare(tmp_path)
    assert good(manifest, "train") == expected(0, 1, 2)
    assert good(manifest, "valid") == expected(3, 4)


def test_pictures_elsewhere_and_a_name_that_says_no_split(tmp_path: Path) -> None:
    write_captions(tmp_path / "raw/coco/captions_all.json", range(2))
    write_pictures(tmp_path / "elsewhere", range(2))
    source = {"name": "coco", "path": "raw/coco", "pictures": str(tmp_path / "elsewhere")}
    assert good(run_sources(tmp_path, source), "train") == expected(0, 1)


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    annotations = [
        {"image_id": 0, "id": 1, "caption": "zero"},
        {"image_id": 9, "id": 2, "caption": "of no image"},
        {"image_id": 1, "id": 3, "caption": " "},
        {"image_id": 1, "id": 4, "caption": 7},
        {"image_id": 1, "id": 5, "caption": "one"},
        "an annotation",
    ]
    images: list[Any] = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (0, 1, 2)]
    images += [{"id": 1, "file_name": "other.jpg"}, {"file_name": "x.jpg"}, []]
    write_captions(tmp_path / "raw/coco/captions_train2017.json", range(0), images=images, annotations=annotations)
    write_pictures(tmp_path / "raw/coco/train2017", range(3))
    manifest = raw_sources.run_prepare(tmp_path)
    rows = raw_sources.rows(manifest, "coco")
    assert {row["image_id"]: row["captions"] for row in rows if not row["error"]} == {0: ["zero"], 1: ["one"]}
    reasons = {
        2: "no image of 'images' has its image_id 9",
        3: "empty caption",
        4: "caption of type int, not a text",
        6: "no image of 'images' has its image_id None",
        9: "no caption: no annotation has the id 2 of this image",
        10: "image id 1 was used before",
        11: "an image without an id",
        12: "an image without an id",
    }
    assert raw_sources.errors(manifest, "coco") == {
        f"captions_train2017.json:entry {number}": reason for number, reason in reasons.items()
    }


def test_files_that_overlap_or_say_no_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "raw/coco"
    write_captions(folder / "annotations/captions_train2017.json", range(2))
    write_captions(folder / "annotations/captions_mine.json", range(2))
    write_pictures(folder / "train2017", range(2))
    assert good(raw_sources.run_prepare(tmp_path), "train") == expected(0, 1)
    assert "captions_mine.json is not read, since beside others a name must say its split" in caplog.text
    write_captions(folder / "annotations/captions_train2014.json", range(2))
    with pytest.raises(
        ZeroVLError, match=r"captions_train2014\.json and captions_train2017\.json, both of train; keep one"
    ):
        raw_sources.run_prepare(tmp_path)


def test_beside_a_split_file_of_karpathy_that_one_is_read(tmp_path: Path) -> None:
    """His splits are of the same pictures, and people have COCO's own files beside them."""
    folder = tmp_path / "raw/coco"
    write_captions(folder / "annotations/captions_train2014.json", range(2))
    write_pictures(folder / "train2014", range(2))
    sentences = [{"raw": "his own", "sentid": 0}]
    image = {
        "filename": f"{0:012d}.jpg",
        "filepath": "train2014",
        "cocoid": 0,
        "split": "train",
        "sentences": sentences,
    }
    (folder / "dataset_coco.json").write_text(json.dumps({"images": [image]}))
    assert good(raw_sources.run_prepare(tmp_path), "train") == {0: ["his own"]}
    named = {"name": "coco", "path": "raw/coco", "layout": "coco"}
    assert good(run_sources(tmp_path, named), "train") == expected(0, 1)
