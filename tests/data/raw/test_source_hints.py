"""Folders in no known layout that have what people download: the refusal says what makes a source, and it does."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from zerovl.data.raw.source_hints import hint_of
from zerovl.errors import ZeroVLError


def pictures(folder: Path, names: str = "{}.jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        (folder / names.format(number)).write_bytes(raw_sources.jpeg(number))


def flickr8k_of_kaggle(folder: Path) -> None:
    pictures(folder / "Images")
    (folder / "captions.txt").write_text("image,caption\n0.jpg,A dog .\n0.jpg,A pet .\n1.jpg,A cat .\n")


def flickr8k(folder: Path) -> None:
    pictures(folder / "Flicker8k_Dataset")
    (folder / "Flickr8k.token.txt").write_text("0.jpg#0\tA dog .\n0.jpg#1\tA pet .\n1.jpg#0\tA cat #1 .\n")
    (folder / "Flickr_8k.testImages.txt").write_text("0.jpg\n")


def flickr30k_of_kaggle(folder: Path) -> None:
    pictures(folder / "flickr30k_images")
    (folder / "results.csv").write_text("image_name| comment_number| comment\n0.jpg| 0| A dog .\n1.jpg| 0| A cat .\n")


def json_list(folder: Path) -> None:
    pictures(folder / "images")
    rows = [{"image": f"images/{number}.jpg", "caption": "a dog", "image_id": f"x_{number}"} for number in range(2)]
    (folder / "blip_karpathy_train.json").write_text(json.dumps(rows, indent=2))


def files_of_img2dataset(folder: Path) -> None:
    for number in range(2):
        pictures(folder / f"0000{number}", f"0000{number}000{{}}.jpg")
        for path in list((folder / f"0000{number}").iterdir()):
            path.with_suffix(".txt").write_text("a dog")
        (folder / f"0000{number}_stats.json").write_text('{"successes": 2}')
        raw_sources.write_csv(folder / f"0000{number}.csv", [("http://a.b/c", "a dog")], header=("url", "caption"))


def karpathy(folder: Path) -> None:
    pictures(folder)
    sentences = [{"raw": "a dog", "sentid": 0}]
    image = {"filename": "0.jpg", "imgid": 0, "split": "train", "sentences": sentences}
    (folder / "k.json").write_text(json.dumps({"images": [image]}))


def coco(folder: Path) -> None:
    pictures(folder)
    annotations = [{"image_id": 0, "id": 0, "caption": "a dog"}]
    content = {"images": [{"id": 0, "file_name": "0.jpg"}], "annotations": annotations}
    (folder / "my_train.json").write_text(json.dumps(content))


def captions_apart(folder: Path) -> None:
    pictures(folder / "images")
    (folder / "captions").mkdir()
    for number in range(2):
        (folder / f"captions/{number}.txt").write_text('a "good" dog,\nasleep\n')


def classes(folder: Path) -> None:
    for name in ("dog", "tabby_cat"):
        pictures(folder / name)
        (folder / name / "Thumbs.db").touch()


def classes_of_splits(folder: Path) -> None:
    for split in ("train", "val"):
        classes(folder / split)


def rename(old: str, new: str) -> Callable[[Path, str], object]:
    return lambda folder, _: (folder / old).rename(folder / new)


def run_it(folder: Path, said: str) -> None:
    """Run the command at the end of a hint, up to what is to be set."""
    command = re.sub(r", and name the source .*", "", said.partition(", ")[2])
    subprocess.run(command, shell=True, cwd=folder, check=True)


CASES: list[tuple[Callable[[Path], None], str, Callable[[Path, str], object], dict[str, Any], int]] = [
    (
        flickr8k_of_kaggle,
        "captions.txt is a table: rename it to pairs.csv, and name the source in data.sources with pictures: Images",
        rename("captions.txt", "pairs.csv"),
        {"pictures": "Images"},
        2,
    ),
    (
        flickr8k,
        "Flickr8k.token.txt has a picture and a caption a line: make a table of it, sed ",
        run_it,
        {"pictures": "Flicker8k_Dataset"},
        2,
    ),
    (
        flickr30k_of_kaggle,
        "it has a table, results.csv: name the source in data.sources with layout: table, table: results.csv and "
        "pictures: flickr30k_images",
        lambda *_: None,
        {"layout": "table", "table": "results.csv", "pictures": "flickr30k_images"},
        2,
    ),
    (
        json_list,
        "blip_karpathy_train.json is a list of mappings (image, caption, image_id): write one a line, python -c ",
        lambda folder, said: run_it(folder, said.replace("(image, caption, image_id)", "")),
        {},
        2,
    ),
    (
        files_of_img2dataset,
        "00000 and 1 more have a .txt beside them: make tars of them, for d in ",
        run_it,
        {},
        4,
    ),
    (
        karpathy,
        "k.json is a split file as Karpathy's: rename it to dataset_k.json",
        rename("k.json", "dataset_k.json"),
        {},
        1,
    ),
    (
        coco,
        "my_train.json has captions as COCO: rename it to captions_train.json",
        rename("my_train.json", "captions_train.json"),
        {},
        1,
    ),
    (
        captions_apart,
        "the captions of the pictures in images/ are in captions/: make a table of both, python -c ",
        run_it,
        {},
        2,
    ),
    (
        classes,
        "pictures in dog/ and 1 more have no captions: name a set of classes in evaluate.classification",
        run_it,
        {},
        4,
    ),
    (
        classes_of_splits,
        "pictures in train/dog/ and 3 more have no captions: name a set of classes in evaluate.classification",
        run_it,
        {},
        4,
    ),
]


@pytest.mark.parametrize(
    ("write", "says", "follow", "settings", "pairs"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_the_hint_makes_a_source_of_it(
    write: Callable[[Path], None],
    says: str,
    follow: Callable[[Path, str], object],
    settings: dict[str, Any],
    pairs: int,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "raw/a"
    write(folder)
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    said = str(error.value).partition("shows each; ")[2]
    assert says in said
    follow(folder, said)
    manifest = run_sources(tmp_path, {"name": "a", "path": "raw/a"} | settings)
    assert (manifest.splits["a", "train"].pairs, manifest.splits["a", "train"].broken) == (pairs, 0)


@pytest.mark.parametrize(
    ("write", "captions"),
    [(captions_apart, {'a "good" dog,\nasleep'}), (classes_of_splits, {"a photo of a dog", "a photo of a tabby cat"})],
)
def test_what_the_table_of_a_hint_says(write: Callable[[Path], None], captions: set[str], tmp_path: Path) -> None:
    folder = tmp_path / "raw/a"
    write(folder)
    run_it(folder, hint_of(folder))
    found = raw_sources.run_prepare(tmp_path)
    assert {text for row in raw_sources.rows(found, "a") for text in row["captions"]} == captions


@pytest.mark.parametrize("names", [("images",), ("train", "valid"), ()])
def test_pictures_that_nothing_describes_are_not_taken_for_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        pictures(tmp_path / name)
    assert not hint_of(tmp_path)


def test_what_save_to_disk_has_written_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "raw/a"
    (folder / "train").mkdir(parents=True)
    (folder / "part.zip").touch()
    with pytest.raises(ZeroVLError, match=r"1 file is not read: part\.zip; unpack first: unzip part\.zip"):
        raw_sources.run_prepare(tmp_path)
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    schema = pa.schema([("text", pa.string())])
    with pa.ipc.new_stream(str(folder / "train/data-00000-of-00001.arrow"), schema):
        pass
    with pytest.raises(
        ZeroVLError, match=r"a/train was written by save_to_disk of .*' \S+/a/train \S+/a/train\.parquet"
    ):
        raw_sources.run_prepare(tmp_path)
