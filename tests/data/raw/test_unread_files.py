"""Files beside good ones that are not read as they are: none is passed over without a word."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.support import raw_sources, s3
from tests.support.raw_sources import run_sources
from tests.support.table_sources import write, write_pictures
from zerovl.data.raw.unread_files import is_other_table, unpacked_name
from zerovl.data.streams.addresses import expand
from zerovl.errors import ZeroVLError

ROW = {"image": "0.jpg", "caption": "one"}


def pack(path: Path, ending: str = ".gz") -> Path:
    """Compress a file in its place."""
    packed = path.with_name(f"{path.name}{ending}")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def test_names_of_compressed_files() -> None:
    names = {"a/0.tar.gz": "a/0.tar", "0.TGZ": "0.tar", "0.txz": "0.tar", "v.csv.zst": "v.csv", "0.tar": "", "gz": ""}
    assert {name: unpacked_name(name) for name in names} == names
    assert all(map(is_other_table, ("v.json", "v.XLSX.gz")))
    assert not any(map(is_other_table, ("v.csv", "v.csv.gz", "v")))


@pytest.mark.parametrize("place", ["here", "on S3"])
@pytest.mark.parametrize("tars", ["packed", "in_place"])
def test_tars_in_capitals_are_read_and_compressed_ones_are_said(
    tmp_path: Path, moto_bucket: str, caplog: pytest.LogCaptureFixture, place: str, tars: str
) -> None:
    folder, path = tmp_path / "raw/w", "raw/w"
    for number, name in enumerate(
        ("0.tar", "2.TAR", "train/3.Tar", "1.tar", "valid/4.tar", "train/5.tar", "__MACOSX/6.tar")
    ):
        raw_sources.write_tar(folder / name, raw_sources.samples([str(number)]))
    for name in ("1.tar", "valid/4.tar", "__MACOSX/6.tar"):
        pack(folder / name)
    shutil.copy(folder / "train/5.tar", folder / "copy.tar")
    pack(folder / "copy.tar").rename(folder / "train/5.tar.gz")  # beside what it was packed from
    (folder / "0_stats.json").write_text('{"successes": 1}')
    (folder / "2_stats.json").write_text('{"successes": 3}')
    if place == "on S3":
        path = f"s3://{moto_bucket}/w"
        for file in (file for file in folder.rglob("*") if file.is_file()):
            s3.client().upload_file(str(file), moto_bucket, f"w/{file.relative_to(folder)}")
    manifest = run_sources(tmp_path, {"name": "w", "path": path, "tars": tars})
    info = manifest.splits["w", "train"]
    assert (info.pairs, info.broken) == (4, 2)  # 2.TAR lacks two of those that are stated beside it
    assert ("w", "valid") not in manifest.splits
    assert "source 'w': 2 files are not read: 1.tar.gz, valid/4.tar.gz; unpack first: gunzip 1.tar.gz" in caplog.text


def test_streams_of_a_folder(tmp_path: Path, moto_bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("0.tar", "1.TAR", "2.tar"):
        raw_sources.write_tar(tmp_path / "w" / name, raw_sources.samples(["0"]))
    pack(tmp_path / "w/2.tar")
    for file in (tmp_path / "w").iterdir():
        s3.client().upload_file(str(file), moto_bucket, f"w/{file.name}")
    for address, inside in (
        (str(tmp_path / "w"), str(tmp_path / "w")),
        (f"s3://{moto_bucket}/w/", f"s3://{moto_bucket}/w"),
    ):
        caplog.clear()
        assert expand([address], tmp_path, "urls") == [f"{inside}/0.tar", f"{inside}/1.TAR"]
        assert "1 file is not read: " in caplog.text
        assert "2.tar.gz; unpack first: gunzip " in caplog.text


def of_tables(folder: Path) -> str:
    write_pictures(folder, "0.jpg")
    for name in ("train.csv", "valid.csv", "data/train-1.csv"):
        write(folder / name, [ROW])
    pack(folder / "data/train-1.csv", ".xz")
    pack(folder / "valid.csv")
    shutil.copy(folder / "train.csv", folder / "copy.csv")
    pack(folder / "copy.csv").rename(folder / "train.csv.gz")
    (folder / "test.json").write_text(json.dumps([ROW]))
    (folder / "test-notes.txt").write_text("none of the pairs")
    return "3 files are not read: data/train-1.csv.xz, test.json, valid.csv.gz; unpack first: unxz data/train-1.csv.xz"


def of_other_tables(folder: Path) -> str:
    write_pictures(folder, "0.jpg")
    write(folder / "train.csv", [ROW])
    (folder / "valid.arrow").write_bytes(b"ARROW1")
    return "1 file is not read: valid.arrow; write it as one of .parquet, .csv, .tsv, .jsonl"


def of_an_imagefolder(folder: Path) -> str:
    for split in ("train", "valid"):
        write_pictures(folder / split, "0.jpg")
        write(folder / split / "metadata.csv", [{"file_name": "0.jpg", "text": "one"}])
    pack(folder / "valid/metadata.csv")
    return "1 file is not read: valid/metadata.csv.gz; unpack first: gunzip valid/metadata.csv.gz"


def of_an_imagefolder_of_another_kind(folder: Path) -> str:
    for split in ("train", "valid"):
        write_pictures(folder / split, "0.jpg")
    write(folder / "train/metadata.csv", [{"file_name": "0.jpg", "text": "one"}])
    (folder / "train/metadata.json").write_text("of Hugging Face's hub")  # beside one that is read
    (folder / "valid/metadata.pq").write_bytes(b"PAR1")
    return "1 file is not read: valid/metadata.pq; write it as one of .parquet, .csv, .tsv, .jsonl"


def of_an_imagefolder_with_another_folder(folder: Path) -> str:
    for place in ("train", "more", ".trash"):
        write_pictures(folder / place, "0.jpg")
        write(folder / place / "metadata.csv", [{"file_name": "0.jpg", "text": "one"}])
    return "more/metadata.csv is not read, since the folder is not called as a split; rename it, or name it in data.so"


def of_zerovl_with_another_split(folder: Path) -> str:
    for split in ("train", "val", "test"):
        raw_sources.write_zerovl(folder, split, 1)
    return "test_anno.csv, val_anno.csv are not read, which train_anno.csv and valid_anno.csv are; rename one that is"


def of_zerovl(folder: Path) -> str:
    for split in ("train", "valid"):
        raw_sources.write_zerovl(folder, split, 1)
    pack(folder / "valid_anno.csv", ".bz2")
    return "1 file is not read: valid_anno.csv.bz2; unpack first: bunzip2 valid_anno.csv.bz2"


@pytest.mark.parametrize(
    "lay",
    [
        *(of_tables, of_other_tables, of_zerovl, of_zerovl_with_another_split),
        *(of_an_imagefolder, of_an_imagefolder_of_another_kind, of_an_imagefolder_with_another_folder),
    ],
)
def test_a_split_that_is_compressed_is_said(lay: object, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert callable(lay)
    said = lay(tmp_path / "raw/a")
    manifest = raw_sources.run_prepare(tmp_path)
    assert {key: info.pairs for key, info in manifest.splits.items()} == {("a", "train"): 1}
    assert f"source 'a': {said}" in caplog.text


def test_tables_that_are_named_by_a_pattern(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path / "raw/a", "0.jpg")
    for name in ("part-0.csv", "part-1.csv"):
        write(tmp_path / "raw/a" / name, [ROW])
    pack(tmp_path / "raw/a/part-1.csv")
    manifest = run_sources(tmp_path, {"name": "a", "path": "raw/a", "layout": "table", "table": "part-*.csv"})
    assert manifest.pairs("a", "train") == 1
    assert "source 'a': 1 file is not read: part-1.csv.gz; unpack first: gunzip part-1.csv.gz" in caplog.text


@pytest.mark.parametrize("name", ["0.tar", "train.csv", "dataset_x.json"])
def test_a_source_of_compressed_files_alone_is_refused_with_the_fix(name: str, tmp_path: Path) -> None:
    (tmp_path / "raw/a").mkdir(parents=True)
    (tmp_path / "raw/a" / name).write_text("x")
    pack(tmp_path / "raw/a" / name)
    with pytest.raises(ZeroVLError, match=rf"has no known layout; .*; 1 file is not read: {name}\.gz; .* gunzip"):
        raw_sources.run_prepare(tmp_path)
