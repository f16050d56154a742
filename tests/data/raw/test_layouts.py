"""A raw layout is a module, a line of the table and a name among the parameters: shown with one more of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from zerovl import log
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import SPLITS, Layout, Source
from zerovl.data.raw.layouts import LAYOUTS
from zerovl.data.raw.records import Picture, Reading, Record, caption_error
from zerovl.errors import ZeroVLError
from zerovl.params import SourceParams


class TabSeparated:
    """A second kind of text file: `train.toy` with picture and caption, pictures beside it."""

    name = "toy"
    signs = "train.toy or valid.toy"
    remote = False
    uses = frozenset[str]()

    def detect(self, folder: Path) -> bool:
        return any(Path(folder, f"{split}.toy").is_file() for split in SPLITS)

    def splits(self, source: Source) -> list[str]:
        return [split for split in SPLITS if Path(source.path, f"{split}.toy").is_file()]

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        with open(Path(source.path, f"{split}.toy"), encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t"))
        records = (
            Record(f"{split}.toy:{n}", n, (text,), (n,), Picture(f"{source.path}/{name}"), None)
            if caption_error(text, max_caption_bytes) is None
            else Record(f"{split}.toy:{n}", n, error=caption_error(text, max_caption_bytes))
            for n, (name, text) in enumerate(lines, 1)
        )
        return Reading(records, len(lines), notes=("read as a toy",))


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setitem(LAYOUTS, "toy", TabSeparated())
    return LAYOUTS["toy"]


def write_toy(folder: Path, split: str, rows: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(len(rows)):
        (folder / f"{split}{n}.jpg").write_bytes(raw_sources.jpeg(n))
    (folder / f"{split}.toy").write_text("".join(f"{split}{n}.jpg\t{text}\n" for n, text in enumerate(rows)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"columns": {"image": "file"}}, r"columns is \{'image': 'file'\}, which its layout zerovl does not use"),
        ({"table": "a.csv"}, r"\(table does\); take table out, or correct the layout"),
        ({"evaluation_split": "val"}, r"\(karpathy and webdataset and table and imagefolder and coco do\)"),
        ({"json_caption": "alt", "layout": "zerovl"}, r"source 'photos': json_caption is 'alt'"),
    ],
)
def test_a_setting_that_the_layout_does_not_use_is_refused(
    tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    raw_sources.write_zerovl(tmp_path / "photos", "train", 1)
    source = {"name": "photos", "path": "photos", "txt_captions": "auto", **setting}
    with pytest.raises(ZeroVLError, match=message):
        run_sources(tmp_path, source)
    assert not (tmp_path / "data").exists()


def test_the_table_has_the_names_that_the_parameters_offer() -> None:
    choices = get_args(SourceParams.model_fields["layout"].annotation)
    assert choices == ("auto", *LAYOUTS)
    assert [layout.name for layout in LAYOUTS.values()] == list(LAYOUTS)


def test_a_layout_of_the_table_is_recognised_and_prepared(
    with_toy: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toy(tmp_path / "raw/t", "train", ["one", " ", "three"])
    write_toy(tmp_path / "raw/t", "valid", ["four"])
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    log.setup()
    manifest = raw_sources.run_prepare(tmp_path)
    assert {key: (info.pairs, info.broken) for key, info in manifest.splits.items()} == {
        ("a", "train"): (2, 0),
        ("t", "train"): (2, 1),
        ("t", "valid"): (1, 0),
    }
    good = [row for row in raw_sources.rows(manifest, "t") if row["error"] is None]
    assert [(row["image_id"], row["captions"], row["origin"]) for row in good] == [
        (1, ["one"], "train.toy:1"),
        (3, ["three"], "train.toy:3"),
    ]
    assert raw_sources.errors(manifest, "t") == {"train.toy:2": "empty caption"}
    assert [shard.path for shard in manifest.splits["t", "train"].shards] == ["t/train/000000.tar"]
    assert "t/train: read as a toy" in capsys.readouterr().err


def test_messages_follow_from_the_table(with_toy: Layout, tmp_path: Path) -> None:
    (tmp_path / "raw/t").mkdir(parents=True)
    with pytest.raises(ZeroVLError, match=r"\(coco\), train\.toy or valid\.toy \(toy\); data/README"):
        raw_sources.run_prepare(tmp_path)
    write_toy(tmp_path / "raw/t", "train", ["one"])
    raw_sources.write_tar(tmp_path / "raw/t/0.tar", raw_sources.sample("0", 0))
    with pytest.raises(ZeroVLError, match="fits the layouts webdataset and toy"):
        raw_sources.run_prepare(tmp_path)


def test_a_layout_that_cannot_lie_on_s3_says_which_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroVLError, match="layout karpathy cannot be read from s3://; only webdataset can, or fetch"):
        run_sources(tmp_path, {"name": "k", "path": "s3://bucket/k", "layout": "karpathy"})
    other = TabSeparated()
    other.remote = True
    monkeypatch.setitem(LAYOUTS, "toy", other)
    with pytest.raises(ZeroVLError, match=r"name it in data\.sources: webdataset or toy"):
        run_sources(tmp_path, {"name": "k", "path": "s3://bucket/k"})
