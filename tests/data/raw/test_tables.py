"""Tables of any form: Parquet, CSV, TSV, JSON lines; columns by name; pictures by name or as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from tests.support.table_sources import WRITERS, good, write, write_pictures
from zerovl.errors import ZeroVLError


@pytest.mark.parametrize("ending", WRITERS)
def test_a_table_of_any_kind_with_open_clips_columns(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "raw/a"
    write_pictures(folder, "p/0.jpg", "p/1.jpg")
    rows = [
        {"filepath": "p/0.jpg", "title": "one", "similarity": "0.3"},
        {"filepath": "p/1.jpg", "title": " ", "similarity": "0.3"},
        {"filepath": "p/0.jpg", "title": "one,\ttoo", "similarity": "0.3"},
        {"filepath": "p/2.jpg", "title": "gone", "similarity": "0.3"},
        {"filepath": "p/1.jpg", "title": "two", "similarity": "0.3"},
        {"filepath": "../x.jpg", "title": "outside", "similarity": "0.3"},
        {"filepath": "https://a.b/c.jpg", "title": "elsewhere", "similarity": "0.3"},
    ]
    write(folder / f"train{ending}", rows)
    write(folder / f"valid{ending}", rows[:1])
    manifest = raw_sources.run_prepare(tmp_path)
    unit, first = ("row ", 1) if ending == ".parquet" else ("", 1 if ending == ".jsonl" else 2)
    place = [f"train{ending}:{unit}{first + number}" for number in range(7)]
    assert good(manifest) == [
        (f"p/0.jpg ({place[0]})", ["one", "one,\ttoo"]),
        (f"p/1.jpg ({place[1]})", ["two"]),
    ]
    assert raw_sources.errors(manifest, "a") == {
        place[1]: "empty caption",
        f"p/2.jpg ({place[3]})": "missing file",
        f"../x.jpg ({place[5]})": "file name '../x.jpg' leaves its folder",
        f"https://a.b/c.jpg ({place[6]})": "a web address; fetch the pictures first, for example with img2dataset",
    }
    assert manifest.pairs("a", "valid") == 1


def test_pictures_as_img2dataset_writes_them_into_parquet(tmp_path: Path) -> None:
    rows = [{"jpg": raw_sources.jpeg(0), "url": "http://a.b/c", "caption": "a dog", "key": "000000000"}]
    write(tmp_path / "raw/a/train.parquet", rows)
    assert good(raw_sources.run_prepare(tmp_path)) == [("train.parquet:row 1", ["a dog"])]


def test_lists_that_were_written_as_text_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_pictures(tmp_path / "raw/a", "0.jpg", "1.jpg", "2.jpg")
    captions = ("['a dog', 'a cat']", '["a dog", "a cat"]', "[applause]")
    rows = [{"image": f"{number}.jpg", "caption": text} for number, text in enumerate(captions)]
    write(tmp_path / "raw/a/train.csv", rows)
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 3
    assert 'a/train: 2 captions in brackets, as ["one", "two"], read as one each: a CSV has no lists' in caplog.text


def test_tables_with_pairs_that_are_not_known_by_their_names_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path / "raw/a", "0.jpg", "1.jpg")
    for name, picture in (("train.csv", "0.jpg"), ("more.csv", "1.jpg")):
        write(tmp_path / "raw/a" / name, [{"image": picture, "caption": "one"}])
    write(tmp_path / "raw/a/classes.csv", [{"class": "cat", "number": "1"}])
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 1
    said = "source 'a': more.csv has pairs too, and is not read; name what is read in data.sources, as in table: "
    assert f"{said}'*.csv'" in caplog.text


def test_pictures_in_parquet_as_hugging_face_stores_them(tmp_path: Path) -> None:
    def embedded(seed: int) -> dict[str, Any]:
        return {"bytes": raw_sources.jpeg(seed), "path": "same.jpg"}

    rows = [
        {"image": embedded(0), "caption": ["zero", "nothing", ""], "image_id": 5},
        {"image": embedded(1), "caption": ["one"], "image_id": 6},
        {"image": embedded(0), "caption": ["again"], "image_id": 5},
        {"image": embedded(2), "caption": ["stolen"], "image_id": 6},
        {"image": {"bytes": None, "path": "there.jpg"}, "caption": ["by name"], "image_id": 7},
        {"image": None, "caption": ["none"], "image_id": 8},
        {"image": {"bytes": b"no picture", "path": None}, "caption": None, "image_id": 9},
    ]
    write_pictures(tmp_path / "raw/a/data", "there.jpg")
    write(tmp_path / "raw/a/data/train-00000-of-00002.parquet", rows[:2])
    write(tmp_path / "raw/a/data/train-00001-of-00002.parquet", rows[2:])
    manifest = raw_sources.run_prepare(tmp_path)
    one, two = (f"data/train-0000{n}-of-00002.parquet:row " for n in (0, 1))
    assert good(manifest) == [
        (f"{one}1", ["zero", "nothing", "again"]),
        (f"{one}2", ["one"]),
        (f"{two}3", ["by name"]),
    ]
    assert raw_sources.errors(manifest, "a") == {
        f"{one}1": "empty caption",
        f"{two}2": f"image_id 6 already belongs to {one}2, here it has {two}2",
        f"{two}4": "no picture",
        f"{two}5": "empty caption",
    }
    by_id = {row["image_id"]: row["sha256"] for row in raw_sources.rows(manifest, "a") if row["error"] is None}
    assert sorted(by_id) == [5, 6, 7]
    assert by_id[5] == by_id[7]
    assert not (tmp_path / "data/shards/.fetched").exists()


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view", "fixed"])
def test_bytes_of_any_type_of_arrow_are_pictures(tmp_path: Path, kind: str) -> None:
    picture = raw_sources.jpeg(0)
    values = pa.array([picture] * 2, pa.binary(len(picture)) if kind == "fixed" else getattr(pa, kind)())
    (tmp_path / "raw/a").mkdir(parents=True)
    pq.write_table(pa.table({"image": values, "caption": ["one", "two"]}), tmp_path / "raw/a/train.parquet")
    assert [captions for _, captions in good(raw_sources.run_prepare(tmp_path))] == [["one"], ["two"]]


def test_pictures_without_ids_are_one_each_or_one_by_their_bytes(tmp_path: Path) -> None:
    rows = [{"image": raw_sources.jpeg(n % 2), "text": f"caption {n}"} for n in range(4)]
    write(tmp_path / "raw/a/pairs.parquet", rows)
    assert [captions for _, captions in good(raw_sources.run_prepare(tmp_path))] == [[f"caption {n}"] for n in range(4)]
    source = {"name": "a", "path": "raw/a", "equal_pictures": "together"}
    manifest = run_sources(tmp_path, source)
    assert [captions for _, captions in good(manifest)] == [["caption 0", "caption 2"], ["caption 1", "caption 3"]]


def test_tables_that_are_copies_or_debris_are_not_read_twice(tmp_path: Path) -> None:
    folder = tmp_path / "test"  # a name that is a split's, but not one within the source
    write_pictures(folder, "0.jpg")
    rows = [{"image": "0.jpg", "caption": "zero"}]
    for place in ("a.csv", ".ipynb_checkpoints/a-checkpoint.csv", "pairs.csv", "pairs.jsonl"):
        write(folder / place, rows)
    source = {"name": "a", "path": str(folder), "layout": "table"}
    manifest = run_sources(tmp_path, source | {"table": "**/a*.csv"})
    assert good(manifest) == [("0.jpg (a.csv:2)", ["zero"])]
    with pytest.raises(ZeroVLError, match=r"test has pairs\.csv and pairs\.jsonl; keep one of them, or name what"):
        run_sources(tmp_path, source)
    assert run_sources(tmp_path, source | {"table": "pairs.csv"}).pairs("a", "train") == 1


def test_rows_without_a_picture_are_counted_one_by_one(tmp_path: Path) -> None:
    write_pictures(tmp_path / "raw/a", "0.jpg", "None")
    names = ["", "0.jpg", None, 7, " ", "None", None]
    write(tmp_path / "raw/a/train.jsonl", [{"image": name, "caption": f"of {name}"} for name in names])
    manifest = raw_sources.run_prepare(tmp_path)
    assert good(manifest) == [("0.jpg (train.jsonl:2)", ["of 0.jpg"]), ("None (train.jsonl:6)", ["of None"])]
    assert raw_sources.errors(manifest, "a") == {
        **{f"train.jsonl:{line}": "no picture" for line in (1, 3, 5, 7)},
        "train.jsonl:4": "picture of type int, neither a name nor bytes",
    }


def test_ids_of_pandas_and_empty_lists_of_captions(tmp_path: Path) -> None:
    write_pictures(tmp_path / "raw/a", "0.jpg", "1.jpg")
    ids = [7.0, float("nan"), 7.0, 2.5]
    rows = [
        {"image": f"{number % 2}.jpg", "captions": [] if number == 2 else ["one"], "image_id": ids[number]}
        for number in range(4)
    ]
    write(tmp_path / "raw/a/train.parquet", rows)
    manifest = raw_sources.run_prepare(tmp_path)
    assert [row["image_id"] == 7 for row in raw_sources.rows(manifest, "a") if row["error"] is None] == [True, False]
    assert raw_sources.errors(manifest, "a") == {
        "train.parquet:row 2": "no image_id",
        "train.parquet:row 3": "empty caption",
    }


def test_rows_of_a_damaged_parquet_are_all_counted(tmp_path: Path) -> None:
    path = tmp_path / "raw/a/train.parquet"
    write_pictures(path.parent, "0.jpg")
    rows = [{"image": "0.jpg", "image_id": n, "caption": f"number {n:06d}"} for n in range(300)]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100, compression="zstd", use_dictionary=False)
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(1).column(2)
    data = bytearray(path.read_bytes())
    start = chunk.data_page_offset + 40
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    manifest = raw_sources.run_prepare(tmp_path)
    info = manifest.splits["a", "train"]
    assert (info.pairs, info.broken) == (200, 100)
    assert "100 rows are lost" in raw_sources.errors(manifest, "a")["train.parquet:row 200"]
    path.write_bytes(data[:-20])
    with pytest.raises(ZeroVLError, match=r"train\.parquet: not a Parquet file, or cut short \(.*\); fetch it again"):
        raw_sources.run_prepare(tmp_path)


def test_a_quote_that_is_not_closed_counts_all_lines_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "raw/a/train.csv"
    write_pictures(path.parent, "0.jpg")
    path.write_text('image;caption\n0.jpg;fine\n0.jpg;"open\n' + "0.jpg;lost\n" * 5)
    manifest = raw_sources.run_prepare(tmp_path)
    assert good(manifest) == [("0.jpg (train.csv:2)", ["fine"])]
    assert raw_sources.errors(manifest, "a") == {
        f"train.csv:{line}": "a quote that opens in line 3 or after is not closed" for line in range(3, 9)
    }


def test_a_layout_that_is_named_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "raw/a").mkdir(parents=True)
    with pytest.raises(ZeroVLError, match=r"raw/a: no table 'x\.csv'; put one there, or name it"):
        run_sources(tmp_path, {"name": "a", "path": "raw/a", "layout": "table", "table": "x.csv"})
    with pytest.raises(ZeroVLError, match=r"no metadata\.csv, \.jsonl or \.parquet"):
        run_sources(tmp_path, {"name": "a", "path": "raw/a", "layout": "imagefolder"})
