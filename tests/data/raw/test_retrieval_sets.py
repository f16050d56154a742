"""Sets for retrieval with several captions a picture: a caption a line of a .txt, or a sample a caption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from zerovl.data.raw.equal_pictures import Grouping, grouping, recognised, together
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.records import Picture, Reading, Record

FIVE = ["a dog runs", "a brown dog", "grass,\tand a dog", "a dog again", "the dog"]


def write_set(folder: Path, split: str, pictures: int = 3) -> None:
    """A split as CLIP_benchmark's exporter writes it: webp, a caption a line, keys that are not numbers alone."""
    members: list[tuple[Any, bytes]] = []
    for number in range(pictures):
        text = "\r\n".join(f"{caption} {number}" for caption in FIVE) + "\r\n\n"
        members += [
            (f"s{number:07d}.webp", raw_sources.encoded(raw_sources.picture(number), "WEBP", lossless=True)),
            (f"s{number:07d}.txt", text.encode()),
        ]
    raw_sources.write_tar(folder / split / "0.tar", members)
    (folder / split / "nshards.txt").write_text("1\n")


def test_a_set_of_clip_benchmark_is_read_as_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "flickr"
    write_set(folder, "test")
    write_set(folder, "train", pictures=2)
    (folder / "dataset_type.txt").write_text("Retrieval\n")
    manifest = raw_sources.run_prepare(tmp_path)
    assert list(manifest.splits) == [("flickr", "train"), ("flickr", "valid")]
    found = raw_sources.rows(manifest, "flickr", "valid")
    assert [row["captions"] for row in found] == [[f"{caption} {number}" for caption in FIVE] for number in range(3)]
    numbers = [number for row in found for number in row["caption_ids"]]
    assert len(set(numbers)) == 15
    assert not raw_sources.errors(manifest, "flickr", "valid")


@pytest.mark.parametrize(
    ("kind", "setting", "several"),
    [("retrieval", "one", False), (None, "lines", True), (None, "auto", False), ("classification", "auto", False)],
)
def test_a_text_is_one_caption_unless_the_source_says_otherwise(
    tmp_path: Path, kind: str | None, setting: str, several: bool
) -> None:
    write_set(tmp_path / "set", "valid")
    if kind:
        (tmp_path / "set" / "dataset_type.txt").write_text(kind)
    manifest = run_sources(tmp_path, {"name": "w", "path": "set", "txt_captions": setting})
    assert [len(row["captions"]) for row in raw_sources.rows(manifest, "w", "valid")] == [5 if several else 1] * 3


@pytest.mark.parametrize("tars", ["packed", "in_place"])
def test_texts_of_several_lines_are_said_where_nothing_says_what_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tars: str
) -> None:
    caplog.set_level("INFO")
    write_set(tmp_path / "set", "test")
    source = {"name": "w", "path": "set", "tars": tars}
    run_sources(tmp_path, source)
    assert "w/valid: 3 of 3 .txt have several lines, each was read as one caption; txt_captions of" in caplog.text
    caplog.clear()
    for setting in ("one", "lines"):
        run_sources(tmp_path, source | {"txt_captions": setting})
    (tmp_path / "set/dataset_type.txt").write_text("retrieval")
    run_sources(tmp_path, source)
    assert "several lines" not in caplog.text


def test_some_texts_of_several_lines_are_nothing_to_speak_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    captions = ["one", "two\nlines", "one\n\n", "two\nlines"]
    members = [each for n, text in enumerate(captions) for each in raw_sources.sample(str(n), n, text)]
    raw_sources.write_tar(tmp_path / "set/train/0.tar", members)
    run_sources(tmp_path, {"name": "w", "path": "set"})
    assert "several lines" not in caplog.text


def test_a_text_without_a_line_is_an_empty_caption(tmp_path: Path) -> None:
    members = [("0.jpg", raw_sources.jpeg(0)), ("0.txt", b" \n\n"), *raw_sources.sample("1", 1, "one")]
    raw_sources.write_tar(tmp_path / "set" / "valid" / "0.tar", members)
    manifest = run_sources(tmp_path, {"name": "w", "path": "set", "txt_captions": "lines"})
    assert raw_sources.errors(manifest, "w", "valid") == {"valid/0.tar:0": "empty caption"}
    assert [row["captions"] for row in raw_sources.rows(manifest, "w", "valid")][1:] == [["one"]]


def test_without_its_type_other_splits_stay_out(tmp_path: Path) -> None:
    """Tars of `test/` of what is not said to be a set for retrieval are not evaluated on of a sudden."""
    write_set(tmp_path / "raw" / "w", "test")
    write_set(tmp_path / "raw" / "w", "train")
    assert list(raw_sources.run_prepare(tmp_path).splits) == [("w", "train")]


def write_rows(folder: Path) -> list[tuple[int, str]]:
    """Five rows a picture in two tars, scattered, and a broken one; returns (picture, caption) in their order."""
    order = [(picture, f"take {take} of {picture}") for take in range(5) for picture in (2, 0, 1)]
    for tar, part in enumerate((order[:7], order[7:])):
        members = []
        for place, (picture, caption) in enumerate(part):
            members += raw_sources.sample(f"{10 * tar + place:09d}", picture, caption)
        if tar:
            members += [("000000099.txt", b"of no picture")]
        raw_sources.write_tar(folder / "valid" / f"0000{tar}.tar", members)
    return order


@pytest.mark.parametrize("setting", [{}, {"equal_pictures": "together"}], ids=["recognised", "asked-for"])
def test_rows_of_equal_pictures_are_one_picture(
    setting: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    order = write_rows(tmp_path / "set")
    manifest = run_sources(tmp_path, {"name": "w", "path": "set"} | setting, shard_samples=2)
    assert "w/valid: 15 rows with 3 pictures: those of equal bytes are one picture" in caplog.text
    found = [row for row in raw_sources.rows(manifest, "w", "valid") if not row["error"]]
    assert [row["captions"] for row in found] == [[text for its, text in order if its == one] for one in (2, 0, 1)]
    assert [row["image_id"] for row in found] == [0, 1, 2]
    assert sorted(number for row in found for number in row["caption_ids"]) == [*range(7), *range(10, 18)]
    assert list(raw_sources.errors(manifest, "w", "valid").values()) == ["no picture with this key"]
    apart = run_sources(tmp_path, {"name": "w", "path": "set", "equal_pictures": "separate"})
    assert (apart.pairs("w", "valid"), manifest.pairs("w", "valid")) == (15, 3)


def given(
    rows: list[tuple[int, str]], setting: str, split: str, folder: Path, without_ids: bool = True
) -> list[tuple[str, ...]]:
    """The captions of the records that come of (picture, caption), from picture files."""
    records = []
    for number, (picture, caption) in enumerate(rows):
        file = folder / f"{picture}.jpg"
        file.write_bytes(raw_sources.jpeg(picture))
        records.append(Record("a", number, (caption,), (number,), Picture(str(file))))
    reading = Reading(iter(records), without_ids=without_ids)
    found = grouping(setting, split, reading)(reading.records, FetchedFiles(folder / "none"), [])
    return [its.captions for its in found]


def test_only_a_row_a_caption_is_recognised(tmp_path: Path) -> None:
    two_each = [(0, "a"), (0, "b"), (1, "c"), (1, "d"), (2, "e")]
    apart = [(caption,) for _, caption in two_each]
    assert given(two_each, "auto", "valid", tmp_path) == [("a", "b"), ("c", "d"), ("e",)]
    assert given(two_each, "auto", "train", tmp_path) == given(two_each, "separate", "valid", tmp_path) == apart
    assert given(two_each, "auto", "valid", tmp_path, without_ids=False) == apart
    some = [*two_each[:2], *((n, f"of {n}") for n in range(2, 5))]  # two of five
    copies = [(n % 2, f"of {n % 2}") for n in range(4)]  # the same pair twice
    placeholder = [(0, f"lost {n}") for n in range(51)]
    for rows in (some, copies, placeholder):
        assert given(rows, "auto", "valid", tmp_path) == [(caption,) for _, caption in rows]
    assert len(given(placeholder, "together", "valid", tmp_path)) == 1
    assert len(given(placeholder[:50], "auto", "valid", tmp_path)) == 1
    assert given([], "auto", "valid", tmp_path) == []


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (together, [("0", "1"), ("own 0",), ("own 1",)]),
        (recognised, [("0",), ("own 0",), ("1",), ("own 1",)]),  # half of the rows are not most
    ],
)
def test_fetched_files_stay_until_their_last_picture_is_given(
    tmp_path: Path, group: Grouping, expected: list[tuple[str, ...]]
) -> None:
    fetched = FetchedFiles(tmp_path / "fetched")

    def read() -> Iterator[Record]:
        for number in range(2):
            with fetched.fetched(f"{number}.tar", lambda path: path.write_bytes(b"same" + b"ab")) as path:
                yield Record("a", number, (f"{number}",), (number,), Picture(path, 0, 4))
                yield Record("b", 9 + number, (f"own {number}",), (9 + number,), Picture(path, 4 + number, 1))

    found = []
    for record in group(read(), fetched, []):
        assert record.picture is not None
        assert Path(record.picture.path).is_file()
        found.append(record.captions)
    assert found == expected
    assert list((tmp_path / "fetched").iterdir()) == []


def test_a_picture_that_cannot_be_read_stays_alone(tmp_path: Path) -> None:
    records = [Record("a", number, ("x",), (number,), Picture(str(tmp_path / "gone.jpg"))) for number in range(2)]
    os.mkfifo(tmp_path / "pipe.jpg")  # which would be waited for
    for path in (tmp_path / "pipe.jpg", tmp_path / "half \ud800.jpg"):
        records += [replace(records[0], picture=Picture(str(path)))]
    assert list(together(iter(records), FetchedFiles(tmp_path / "none"), [])) == records
